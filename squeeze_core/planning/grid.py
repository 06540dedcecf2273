"""The grid of a plan: 8 x 8 cells, each with the number of the subject that stands there, 0 for background.

Regions (boxes or masks) become cells by MUSIC's rule (arXiv 2604.07422): a cell is labelled when its IoU with the
region reaches lambda times the mean IoU over the cells that the region touches. Where several subjects claim a
cell, the nearer one has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import SqueezeError

CELLS = 8
LAMBDA = 0.05
BACKGROUND = 0

Grid = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Box:
    """A rectangle as parts of the picture's width and height: 0 is its left or top edge, 1 its right or bottom.

    Raises `SqueezeError` when it has no area or leaves the picture.
    """

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.width, self.height)
        if not all(abs(side) < float("inf") for side in sides) or min(self.width, self.height) <= 0:
            raise SqueezeError(f"{self} has no area. Give a width and a height above 0.")
        slack = 1e-6  # of pixels divided and added again
        if min(self.left, self.top) < -slack or max(self.right, self.bottom) > 1 + slack:
            raise SqueezeError(f"{self} leaves the picture, which reaches from 0 to 1. Move or shrink it.")

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def middle(self) -> tuple[float, float]:
        return self.left + self.width / 2, self.top + self.height / 2

    def __str__(self) -> str:
        return f"The box ({self.left:.3g}, {self.top:.3g}) of size {self.width:.3g} x {self.height:.3g}"


def cells_of_box(box: Box) -> torch.Tensor:
    """[8, 8] bool: the cells of one box, by the rule above."""
    columns = _overlap(box.left, box.right)
    rows = _overlap(box.top, box.bottom)
    return _labelled(torch.outer(rows, columns), box.width * box.height)


def cells_of_mask(mask: torch.Tensor) -> torch.Tensor:
    """[8, 8] bool of one mask [height, width], any size, 1 at the subject; above 0.5 counts. All false if empty.

    Raises `SqueezeError` for another number of dimensions.
    """
    if mask.ndim != 2 or mask.numel() == 0:
        raise SqueezeError(f"A mask has the shape {list(mask.shape)}; give one of height and width.")
    inside = (mask.detach().double().cpu() > 0.5).double()
    rows, columns = _pixel_overlap(mask.shape[0]), _pixel_overlap(mask.shape[1])
    covered = rows @ inside @ columns.T
    return _labelled(covered, float(covered.sum()))


def grid_from_cells(cells: Mapping[int, torch.Tensor], depths: Mapping[int, int] | None = None) -> Grid:
    """Cells [8, 8] of each subject number -> who has each cell.

    depths: 1 is the nearest. Of two equally near the one of fewer cells has a shared cell, then the lower number.
    """
    near = {number: (depths or {}).get(number, 1) for number in cells}
    order = sorted(cells, key=lambda number: (near[number], int(cells[number].sum()), number), reverse=True)
    grid = torch.zeros(CELLS, CELLS, dtype=torch.long)
    for number in order:
        grid[cells[number]] = number
    return tuple(tuple(row) for row in grid.tolist())


def grid_from_boxes(boxes: Mapping[int, Box], depths: Mapping[int, int] | None = None) -> Grid:
    """As `grid_from_cells`. Raises `SqueezeError` when a nearer box hides another wholly."""
    grid = grid_from_cells({number: cells_of_box(box) for number, box in boxes.items()}, depths)
    shown = {number for row in grid for number in row}
    if hidden := [str(number) for number in boxes if number not in shown]:
        raise SqueezeError(
            f"The box of subject {' and of subject '.join(hidden)} is wholly covered by others, so that it could "
            "not be seen. Move it, make it larger, or give it a smaller depth (1 is the nearest)."
        )
    return grid


def boxes_of_grid(grid: Grid) -> dict[int, Box]:
    """For each subject that has cells, the smallest box around them."""
    boxes = {}
    for number in sorted({number for row in grid for number in row} - {BACKGROUND}):
        rows = [i for i, row in enumerate(grid) if number in row]
        columns = [j for j in range(CELLS) if any(row[j] == number for row in grid)]
        sides = (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        boxes[number] = Box(*(side / CELLS for side in sides))
    return boxes


def middle_of_cells(grid: Grid, number: int) -> tuple[float, float]:
    """(x, y) of a subject, 0 to 1: the mean over its cells, which must be at least one."""
    places = [(j, i) for i, row in enumerate(grid) for j, label in enumerate(row) if label == number]
    return tuple((sum(place[axis] for place in places) / len(places) + 0.5) / CELLS for axis in (0, 1))  # type: ignore[return-value]


def owners(grid: Grid, height: int, width: int) -> torch.Tensor:
    """[height, width] int64: the grid on any other one, such as FLUX's tokens; each takes the cell it lies in."""
    if min(height, width) < 1:
        raise SqueezeError(f"A grid of {height} x {width} tokens has none. Give at least 1 x 1.")
    rows = ((torch.arange(height) + 0.5) * CELLS / height).long()
    columns = ((torch.arange(width) + 0.5) * CELLS / width).long()
    return torch.tensor(grid)[rows][:, columns]


def to_text(grid: Grid) -> str:
    """Eight lines such as ". . 1 1 2 2 . ."; a dot is background."""
    return "\n".join(" ".join(str(label) if label else "." for label in row) for row in grid)


def from_text(text: str) -> Grid:
    """What `to_text` writes; 0 stands for background, too. Raises `SqueezeError`."""
    rows = [line.split() for line in text.strip().splitlines()]
    for label in (label for row in rows for label in row):
        if label != "." and not (label.isascii() and label.isdigit()):
            raise SqueezeError(f'The grid holds "{label[:20]}"; write subject numbers, and dots for background.')
    return checked_size([[0 if label == "." else int(label) for label in row] for row in rows])


def checked_size(rows: Sequence[Sequence[int]]) -> Grid:
    """Raises `SqueezeError` for another size than 8 x 8."""
    widths = {len(row) for row in rows}
    if len(rows) != CELLS or widths != {CELLS}:
        given = f"{len(rows)} rows of {' and '.join(map(str, sorted(widths))) or 'no'} cells"
        raise SqueezeError(f"The grid has {given}; it must have {CELLS} rows of {CELLS} cells.")
    return tuple(tuple(row) for row in rows)


def _labelled(covered: torch.Tensor, area: float) -> torch.Tensor:
    """covered: [8, 8], the part of the picture that lies both in a cell and in the region; area: the region's."""
    iou = covered / (1 / CELLS**2 + area - covered)
    touched = iou > 1e-9
    if not bool(touched.any()):
        return touched
    return touched & (iou >= LAMBDA * iou[touched].mean())


def _overlap(low: float, high: float) -> torch.Tensor:
    """[8]: the length of each cell's side that lies between two points."""
    edges = torch.arange(CELLS + 1, dtype=torch.float64) / CELLS
    return (edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)).clamp(min=0)


def _pixel_overlap(pixels: int) -> torch.Tensor:
    """[8, pixels]: how much of each cell's side each pixel covers, as parts of the picture's side."""
    edges = torch.arange(pixels + 1, dtype=torch.float64) / pixels
    cells = torch.arange(CELLS + 1, dtype=torch.float64) / CELLS
    low = torch.maximum(edges[:-1], cells[:-1, None])
    high = torch.minimum(edges[1:], cells[1:, None])
    return (high - low).clamp(min=0)
