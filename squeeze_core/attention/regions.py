"""Where in the picture: boxes or a mask as the user gives them, and what that is on a grid of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import SqueezeError

FAINTEST = 1 / 512  # a grey below that is black: half a step of 8 bits


@dataclass(frozen=True)
class PixelBox:
    """Pixels of the picture: the left and upper edge, and the size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Region:
    """A part of the picture: of boxes in its pixels, or of a mask.

    boxes: together they are the region. mask: [height, width] in 0 to 1, of any size: it spans the picture. Grey is
    half seen. Exactly one of the two is given. Raises `SqueezeError` for what can be no region.
    """

    boxes: tuple[PixelBox, ...] = ()
    mask: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask is not None:
            self._check_mask(self.mask)
        elif not self.boxes:
            raise SqueezeError("The region has no box. Draw one, or connect a mask.")
        for box in self.boxes:
            values = (box.x, box.y, box.width, box.height)
            if not all(map(math.isfinite, values)) or box.width <= 0 or box.height <= 0:
                raise SqueezeError(
                    f"A box of {box.width:g} x {box.height:g} px at ({box.x:g}, {box.y:g}) has no area. "
                    "Draw it with some width and height."
                )

    def _check_mask(self, mask: torch.Tensor) -> None:
        if self.boxes:
            raise SqueezeError("The region has boxes and a mask. Give one of them.")
        if mask.ndim != 2 or 0 in mask.shape:
            raise SqueezeError(f"A region's mask must be [height, width]; got {list(mask.shape)}. Give one mask.")
        if not torch.isfinite(mask).all():
            raise SqueezeError("The region's mask has values that are no numbers. Make it again.")
        if mask.max() < FAINTEST:
            raise SqueezeError("The region's mask is black everywhere. White marks the part of the picture.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region) or self.boxes != other.boxes:
            return False
        if self.mask is None or other.mask is None:
            return self.mask is other.mask
        return self.mask is other.mask or torch.equal(self.mask, other.mask)

    __hash__ = None  # type: ignore[assignment]  # a mask has no cheap hash

    def on(self, rows: int, columns: int, pixels: int) -> torch.Tensor:
        """[rows, columns] float32 in 0 to 1 for a picture of that many tokens of `pixels` a side.

        A hard region stays hard: a token is inside when half of it is, and at least the token that is most inside.
        Raises `SqueezeError` for boxes outside the picture.
        """
        covered = self._mask(rows, columns) if self.mask is not None else self._boxes(rows, columns, pixels)
        if self.mask is not None and not ((self.mask == 0) | (self.mask == 1)).all():
            return torch.where(covered < FAINTEST, 0.0, covered)
        return (covered >= min(0.5, float(covered.max()))).float()

    def _mask(self, rows: int, columns: int) -> torch.Tensor:
        assert self.mask is not None
        mask = self.mask.detach().float().cpu().clamp(0, 1)[None, None]
        return F.interpolate(mask, (rows, columns), mode="area")[0, 0]

    def _boxes(self, rows: int, columns: int, pixels: int) -> torch.Tensor:
        covered = torch.zeros(rows, columns)
        for box in self.boxes:
            down = _overlap(box.y / pixels, box.height / pixels, rows)
            right = _overlap(box.x / pixels, box.width / pixels, columns)
            covered = torch.maximum(covered, down[:, None] * right[None])
        if not covered.any():
            box = self.boxes[0]
            raise SqueezeError(
                f"The box of {box.width:g} x {box.height:g} px at ({box.x:g}, {box.y:g}) lies outside the picture "
                f"of {columns * pixels} x {rows * pixels} px. Draw it on a canvas of the picture's size."
            )
        return covered


def _overlap(start: float, length: float, cells: int) -> torch.Tensor:
    """[cells] how much of each cell of size 1 an interval covers."""
    left = torch.arange(cells, dtype=torch.float32)
    return (left + 1).clamp(max=start + length).sub(left.clamp(min=start)).clamp(0, 1)


def boxes(given: object) -> tuple[PixelBox, ...]:
    """Boxes as ComfyUI has them, {x, y, width, height} in pixels: one, a list, or a list for each frame.

    Raises `SqueezeError` for anything else.
    """
    if isinstance(given, Mapping):
        try:
            return (PixelBox(*(float(given[name]) for name in ("x", "y", "width", "height"))),)
        except (KeyError, TypeError, ValueError) as error:
            raise SqueezeError(
                f"A box is {dict(given)!r:.80}; it must have the numbers x, y, width and height."
            ) from error
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return tuple(box for part in given for box in boxes(part))
    raise SqueezeError(f"A box is {type(given).__name__}; it must be x, y, width and height in pixels.")


def owners(places: Sequence[tuple[int, Region]], rows: int, columns: int, pixels: int) -> torch.Tensor:
    """[rows, columns] long: which subject owns each token of the picture, 0 for none.

    places: (subject, region), the nearest to the viewer last: it wins where they overlap. Raises `SqueezeError`
    when a subject is left without a token.
    """
    owner = torch.zeros(rows, columns, dtype=torch.long)
    for subject, region in places:
        covered = region.on(rows, columns, pixels)
        owner[covered >= min(0.5, float(covered.max()))] = subject
    for subject in dict(places):
        if not (owner == subject).any():
            raise SqueezeError(
                f"The region of subject {subject} is covered by nearer ones. Move it, make it larger, or put the "
                "subject later in the chain: later ones are nearer."
            )
    return owner
