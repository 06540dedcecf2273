"""Files -> boxes and squares cut from them, through the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..vision.backbones import Dino, cosines
from ..vision.batches import Progress, in_batches
from ..vision.detector import Detection, Detector, cut, large_enough
from .cache import Cache
from .embedding import Files, embed
from .generated_files import Generated

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Crop:
    """A square around a box of a file; box None is the whole picture. fill: see `detector.cut`."""

    path: Path
    box: Detection | None
    fill: float = 1.0

    def key(self, files: Files) -> tuple[str, ...]:
        """For the cache."""
        place = (
            "whole"
            if self.box is None
            else ",".join(f"{v:.2f}" for v in (self.box.left, self.box.top, self.box.right, self.box.bottom))
        )
        return files.hash(self.path), place, f"{self.fill:g}"


def detect(
    detector: Detector,
    wanted: Sequence[tuple[Path, str]],
    files: Files,
    cache: Cache,
    progress: Progress | None = None,
) -> dict[tuple[Path, str], list[Detection]]:
    """The boxes of each (file, words), best first. Files that cannot be read are left out."""
    key = detector.spec.key
    readable = set(files.usable([path for path, _ in wanted]))
    wanted = [case for case in dict.fromkeys(wanted) if case[0] in readable]
    kept = {case: cache.get(key, files.hash(case[0]), case[1]) for case in wanted}
    todo = [case for case, boxes in kept.items() if boxes is None]

    def work(batch: Sequence[tuple[Path, str]]) -> list[np.ndarray]:
        found = []
        for path, words in batch:
            picture = files.read(path)
            assert picture is not None  # it was readable
            boxes = detector.detect(picture, words)
            rows = [(box.left, box.top, box.right, box.bottom, box.score) for box in boxes]
            value = np.array(rows, dtype=np.float64).reshape(-1, 5)
            cache.put(key, files.hash(path), words, value=value)
            found.append(value)
        return found

    what = "detector looks for subjects"
    fresh = dict(zip(todo, in_batches(todo, work, what=what, first=1, progress=progress)))
    arrays = {case: fresh[case] if boxes is None else boxes for case, boxes in kept.items()}
    return {case: [Detection(*map(float, row)) for row in array] for case, array in arrays.items()}


@dataclass(frozen=True)
class Found:
    """What a detector finds of the subjects of pictures, and how DINO sees it and them.

    references: of the files that could be read. boxes: of each picture and name, the best first.
    """

    references: dict[Path, torch.Tensor]
    boxes: dict[tuple[Path, str], list[Detection]]
    vectors: dict[Crop, torch.Tensor]

    def likeness(self, path: Path, box: Detection, reference: Path) -> float:
        """Cosine of a box's content and a reference."""
        return float(cosines(self.references[reference][None], self.vectors[Crop(path, box)][None]))


def find(
    generated: Sequence[Generated],
    detector: Detector,
    dino: Dino,
    files: Files,
    cache: Cache,
    most: int,
    progress: Progress | None = None,
) -> Found:
    """The best `most` boxes of each subject's name that are large enough, beside the references."""
    shown = [path for p in generated for path in p.sample.inputs]
    files.names |= {path: f"{path.parent.name}/{path.name}" for path in shown}  # type: ignore[operator]
    references = embed(dino, shown, files, cache, progress)
    wanted = [(p.path, subject.words) for p in generated for subject in p.sample.subjects]
    boxes = {}
    for (path, words), each in detect(detector, wanted, files, cache, progress).items():
        read = files.read(path)
        assert read is not None  # it has boxes
        boxes[path, words] = large_enough(each, read.width)[:most]
    crops = [Crop(path, box) for (path, _), each in boxes.items() for box in each]
    vectors = of_crops(dino.spec.key, dino.encode, crops, files, cache, "dino reads crops", progress)
    return Found(references, boxes, vectors)


def of_crops(
    key: str,
    compute: Callable[[Sequence[Image]], torch.Tensor],
    crops: Sequence[Crop],
    files: Files,
    cache: Cache,
    what: str,
    progress: Progress | None = None,
) -> dict[Crop, torch.Tensor]:
    """`compute` on every distinct crop: one row of its result each. key: of the backbone, for the cache."""
    crops = list(dict.fromkeys(crops))
    kept = {crop: cache.get(key, "crop", *crop.key(files)) for crop in crops}
    todo = [crop for crop, value in kept.items() if value is None]

    def work(batch: Sequence[Crop]) -> list[torch.Tensor]:
        squares = []
        for crop in batch:
            picture = files.read(crop.path)
            assert picture is not None  # only readable files have crops
            squares.append(cut(picture, crop.box, crop.fill))
        rows = list(compute(squares))
        for crop, row in zip(batch, rows):
            cache.put(key, "crop", *crop.key(files), value=row.numpy())
        return rows

    values = {crop: torch.from_numpy(value) for crop, value in kept.items() if value is not None}
    values.update(zip(todo, in_batches(todo, work, what=what, progress=progress)))
    return values
