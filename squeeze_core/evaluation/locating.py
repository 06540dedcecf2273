"""Files -> boxes and squares cut from them, through the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..vision.batches import Progress, in_batches
from ..vision.detector import Detection, Detector, cut
from .cache import Cache
from .embedding import Files

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
