"""Where a named thing is in a picture: boxes from an open-vocabulary detector, and the squares cut from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from .backbones import _device, _load
from .registry import BackboneSpec, describe, read_config, weight_file

if TYPE_CHECKING:
    from PIL.Image import Image

# Grounding DINO's own defaults; OWL's scores are lower throughout.
_THRESHOLDS = {"grounding-dino": 0.25, "mm-grounding-dino": 0.25, "owlv2": 0.1, "owlvit": 0.1}


@dataclass(frozen=True)
class Detection:
    """Pixels, right and bottom outside; score 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    score: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


class Rectangle(Protocol):
    """In any unit."""

    @property
    def left(self) -> float: ...
    @property
    def top(self) -> float: ...
    @property
    def right(self) -> float: ...
    @property
    def bottom(self) -> float: ...


def overlap(one: Rectangle, other: Rectangle) -> float:
    """Intersection over union."""
    width = max(0.0, min(one.right, other.right) - max(one.left, other.left))
    height = max(0.0, min(one.bottom, other.bottom) - max(one.top, other.top))
    areas = ((each.right - each.left) * (each.bottom - each.top) for each in (one, other))
    return width * height / (sum(areas) - width * height)


class Detector:
    """Grounding DINO or OWL. `spec.preprocessing` also holds the threshold."""

    def __init__(self, model: nn.Module, processor: Any, spec: BackboneSpec, threshold: float) -> None:
        self.model, self.processor, self.spec, self.threshold = model, processor, spec, threshold

    @torch.inference_mode()
    def detect(self, picture: Image, words: str) -> list[Detection]:
        """Boxes of what the words name, best first, clipped to the picture; empty when there is none."""
        grounding = "grounding" in self.spec.model_type
        text = words.strip().lower().rstrip(".") + "." if grounding else [[f"a photo of {words.strip()}"]]
        inputs = self.processor(images=picture, text=text, return_tensors="pt").to(_device(self.model))
        outputs = self.model(**inputs)
        sizes = [(picture.height, picture.width)]
        process = self.processor.post_process_grounded_object_detection
        if grounding:
            found = process(
                outputs,
                inputs["input_ids"],
                threshold=self.threshold,
                text_threshold=self.threshold,
                target_sizes=sizes,
            )[0]
        else:
            found = process(outputs, threshold=self.threshold, target_sizes=sizes)[0]
        boxes = [
            _clipped(values, float(score), picture)
            for values, score in zip(found["boxes"].tolist(), found["scores"].tolist())
        ]
        kept = [box for box in boxes if box.width >= 1 and box.height >= 1]
        return sorted(kept, key=lambda box: -box.score)


def load_detector(
    folder: str | Path, device: torch.device | str = "cpu", threshold: float | None = None
) -> Detector:
    """Grounding DINO, OWL-ViT or OWLv2 from a local folder. Raises `SqueezeError`.

    threshold: lowest score of a box, 0 to 1; None means 0.25 for Grounding DINO and 0.1 for OWL.
    """
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    folder = Path(folder).expanduser()
    kind = read_config(folder, "detector")["model_type"]
    limit = _THRESHOLDS[kind] if threshold is None else threshold
    processor = _load(AutoProcessor, folder, "detector")
    size = {key: value for key, value in dict(processor.image_processor.size).items() if value}
    preparation = {"resize": size, "threshold": limit}
    spec = describe(folder, "detector", weight_file(folder, "detector"), kind, preparation)
    model = _load(AutoModelForZeroShotObjectDetection, folder, "detector")
    return Detector(model.to(device).eval(), processor, spec, limit)


def large_enough(boxes: Sequence[Detection], width: int) -> list[Detection]:
    """XVerseBench's rule: at least (width / 20) squared in area, and a quarter of that length on each side."""
    least = width // 20
    return [box for box in boxes if box.width * box.height >= least**2 and min(box.width, box.height) >= least // 4]


def cut(picture: Image, box: Detection | None, fill: float = 1.0) -> Image:
    """The box's content in the middle of a white square, whose side is the box's longer one divided by `fill`.

    None for the box means the whole picture.
    """
    from PIL import Image as pil

    if box is not None:
        left, top = max(0, math.floor(box.left)), max(0, math.floor(box.top))
        right, bottom = min(picture.width, math.ceil(box.right)), min(picture.height, math.ceil(box.bottom))
        picture = picture.crop((left, top, max(left + 1, right), max(top + 1, bottom)))
    side = max(1, int(max(picture.size) / fill))
    square = pil.new("RGB", (side, side), "white")
    square.paste(picture.convert("RGB"), ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _clipped(values: Sequence[float], score: float, picture: Image) -> Detection:
    left, right = (min(max(value, 0.0), picture.width) for value in (values[0], values[2]))
    top, bottom = (min(max(value, 0.0), picture.height) for value in (values[1], values[3]))
    return Detection(left, top, right, bottom, score)
