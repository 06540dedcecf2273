"""A picture -> the square of numbers that a backbone reads.

Done with Pillow's resampling, because published scores were: torchvision and transformers resize tensors in
another way, and scores would differ in the third digit.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import SqueezeError

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Preprocessing:
    """resize: px of the shorter side. crop: px of the square taken from the middle. mean, std: of 0..1 values."""

    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bicubic"

    def __call__(self, picture: Image) -> torch.Tensor:
        """[3, crop, crop], float32. picture: RGB."""
        from PIL import Image as pil

        width, height = picture.size
        short, long = sorted((width, height))
        longer = int(self.resize * long / short)
        size = (self.resize, longer) if width <= height else (longer, self.resize)
        resized = picture.convert("RGB").resize(size, pil.Resampling[self.interpolation.upper()])
        left, top = round((size[0] - self.crop) / 2), round((size[1] - self.crop) / 2)
        # A crop beyond the edges, where crop > resize, is filled with black.
        square = resized.crop((left, top, left + self.crop, top + self.crop))
        values = torch.from_numpy(np.array(square, dtype=np.float32) / 255).permute(2, 0, 1)
        return (values - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read(folder: Path, default: Preprocessing) -> Preprocessing:
    """As the model's folder says in its preprocessor_config.json or processor_config.json, else the default.

    Raises `SqueezeError` for a file that cannot be read.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            config = config.get("image_processor", config)
            return Preprocessing(
                resize=_side(config.get("size"), default.resize),
                crop=_side(config.get("crop_size"), default.crop),
                mean=_triple(config.get("image_mean"), default.mean),
                std=_triple(config.get("image_std"), default.std),
                interpolation=_RESAMPLING.get(config.get("resample", 3), "bicubic"),
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SqueezeError(f'"{path}" cannot be read ({error}). Fetch the folder again.') from error
    return default


def _side(size: Any, default: int) -> int:
    """Older files hold a number, newer ones an object."""
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return default if size is None else int(size)


def _triple(values: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if values is None:
        return default
    first, second, third = (float(value) for value in values)
    return first, second, third
