"""Regions to cells and back, by the paper's rule."""

import pytest
import torch

from squeeze_core.errors import SqueezeError
from squeeze_core.planning import grid as cells
from squeeze_core.planning.grid import Box


def brute_force(mask: torch.Tensor) -> torch.Tensor:
    """The rule by counting pixels; sides divisible by 8."""
    height, width = mask.shape
    high, wide = height // 8, width // 8
    iou = torch.zeros(8, 8)
    for i in range(8):
        for j in range(8):
            cell = torch.zeros_like(mask)
            cell[i * high : (i + 1) * high, j * wide : (j + 1) * wide] = True
            iou[i, j] = (cell & mask).sum() / (cell | mask).sum()
    return iou >= 0.05 * iou[iou > 0].mean()


@pytest.mark.parametrize("seed", range(5))
def test_a_masks_cells_are_those_of_the_rule(seed):
    random = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    centre = torch.rand(2, generator=random) * torch.tensor([64, 96])
    mask = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) < (10 + 20 * torch.rand(1, generator=random)) ** 2
    expected = brute_force(mask)
    found = cells.cells_of_mask(mask.float())
    assert torch.equal(found, expected & found) and found.any()
    assert torch.equal(found, expected)


def test_a_box_has_the_cells_of_its_mask_at_any_size():
    box = Box(0.13, 0.3, 0.42, 0.55)
    for height, width in ((100, 100), (300, 700)):
        mask = torch.zeros(height, width)
        mask[round(0.3 * height) : round(0.85 * height), round(0.13 * width) : round(0.55 * width)] = 1
        assert torch.equal(cells.cells_of_mask(mask), cells.cells_of_box(box))


def test_a_sliver_of_a_cell_is_not_labelled_and_a_tenth_is():
    found = cells.cells_of_box(Box(0, 0, 0.25 + 0.002, 0.25))
    assert found[:2, :2].all() and found.sum() == 4
    assert cells.cells_of_box(Box(0, 0, 0.25 + 0.0125, 0.25)).sum() == 6


def test_a_thing_smaller_than_a_cell_still_has_one():
    assert cells.cells_of_box(Box(0.5, 0.5, 0.01, 0.01)).nonzero().tolist() == [[4, 4]]


def test_nearer_subjects_win_and_of_equally_near_the_smaller():
    boxes = {1: Box(0, 0, 1, 1), 2: Box(0.25, 0.25, 0.5, 0.5)}
    small_wins = cells.grid_from_boxes(boxes)
    assert sum(row.count(2) for row in small_wins) == 16
    boxes = {1: Box(0, 0, 0.75, 1), 2: Box(0.5, 0, 0.5, 1)}
    assert [cells.grid_from_boxes(boxes, depths)[0].count(1) for depths in ({1: 1, 2: 2}, {1: 2, 2: 1})] == [6, 4]


def test_boxes_that_lie_on_the_grid_come_back_from_it():
    boxes = {1: Box(0, 0.25, 0.5, 0.5), 7: Box(0.625, 0, 0.375, 1)}
    assert cells.boxes_of_grid(cells.grid_from_boxes(boxes)) == boxes


def test_a_box_that_another_hides_wholly_is_refused():
    with pytest.raises(SqueezeError, match="box of subject 2 is wholly covered"):
        cells.grid_from_boxes({1: Box(0, 0, 1, 1), 2: Box(0.25, 0.25, 0.5, 0.5)}, {1: 1, 2: 2})


@pytest.mark.parametrize(
    "sides", [(0, 0, 0, 1), (0, 0, 1, -1), (0.5, 0, 0.6, 1), (-0.1, 0, 0.5, 1), (0, 0, 1, float("nan"))]
)
def test_a_box_without_area_or_outside_the_picture_is_refused(sides):
    with pytest.raises(SqueezeError, match=r"no area|leaves the picture"):
        Box(*sides)


def test_a_grid_as_text_comes_back_and_a_wrong_one_is_refused():
    grid = tuple(tuple((i * j) % 13 for j in range(8)) for i in range(8))
    assert cells.from_text(cells.to_text(grid)) == grid
    with pytest.raises(SqueezeError, match="7 rows of 8"):
        cells.from_text("\n".join([". . . . . . . 1"] * 7))
    with pytest.raises(SqueezeError, match='holds "x"'):
        cells.from_text("x" * 1)


def test_owners_on_any_grid_of_tokens_take_the_cell_that_they_lie_in():
    grid = tuple(tuple(1 + i // 4 * 2 + j // 4 for j in range(8)) for i in range(8))
    assert cells.owners(grid, 8, 8).tolist() == [list(row) for row in grid]
    assert cells.owners(grid, 2, 2).tolist() == [[1, 2], [3, 4]]
    own = cells.owners(grid, 64, 48)
    assert own.shape == (64, 48)
    for number, part in ((1, own[:32, :24]), (2, own[:32, 24:]), (3, own[32:, :24]), (4, own[32:, 24:])):
        assert (part == number).all()
    assert cells.owners(grid, 1, 3).shape == (1, 3)
    with pytest.raises(SqueezeError, match="at least 1 x 1"):
        cells.owners(grid, 0, 3)
