"""Where subjects stand when relations are all that is known of them: rows of equal columns.

Subjects that stand beside one another share a row; "above" orders the rows, "left of" the columns of a row, "in
front of" the depths. Whoever has no relation stands in the order of the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from ..errors import SqueezeError
from .grid import BACKGROUND, CELLS, Box, Grid, middle_of_cells
from .plan import PlanRelation, Relation

Thing = TypeVar("Thing")
_IN_A_ROW = 4  # of subjects that no words place

# Places from the middle, in words; the same as the toy world's.
_PLACES = {
    (0, 0): "in the middle", (0, -1): "at the top", (0, 1): "at the bottom", (-1, 0): "on the left",
    (1, 0): "on the right", (-1, -1): "in the top left", (1, -1): "in the top right",
    (-1, 1): "in the bottom left", (1, 1): "in the bottom right",
}  # fmt: skip


def placed(numbers: Sequence[int], relations: Iterable[PlanRelation] = ()) -> tuple[Grid, dict[int, int]]:
    """A grid on which every relation of place holds, and the depth of each subject.

    numbers: 1 to 12 subject numbers. Raises `SqueezeError` when relations contradict one another, or ask for more
    subjects in a row or in a column than the grid has cells.
    """
    pairs = plain_pairs(relations)
    beside, above, front = pairs["left of"], pairs["above"], pairs["in front of"]
    stacked = {frozenset(pair) for pair in above}
    group = _groups(numbers, [pair for pair in beside if frozenset(pair) not in stacked])
    across = [(group[a], group[b]) for a, b in above]
    level = _levels(list(dict.fromkeys(group.values())), across, "above")
    order = _levels(numbers, beside, "left of")
    # Where a subject stands left of one in another row, all rows share their columns.
    shared = any(level[group[a]] != level[group[b]] for a, b in beside)
    rows: list[list[list[int]]] = []
    for height in range(1 + max(level.values())):
        members = [number for number in numbers if level[group[number]] == height]
        if shared:
            columns = range(1 + max(order.values()))
            rows.append([[number for number in members if order[number] == column] for column in columns])
            continue
        members.sort(key=lambda number: (order[number], numbers.index(number)))
        rows += [[[number] for number in row] for row in _split(members, beside)]
    depth = _levels(numbers, front, "in front of")
    return _grid(rows), {number: depth[number] + 1 for number in numbers}


def plain_pairs(relations: Iterable[PlanRelation]) -> dict[Relation, list[tuple[int, int]]]:
    """Pairs of numbers under "left of", "above" and "in front of"; opposites are turned round, others left out."""
    pairs: dict[Relation, list[tuple[int, int]]] = {"left of": [], "above": [], "in front of": []}
    for first, word, second in (relation.plain for relation in relations):
        if word in pairs and (first, second) not in pairs[word]:
            pairs[word].append((first, second))
    return pairs


def words_of_place(box: Box) -> str:
    """ "on the left": where the middle of a box lies, by thirds of the picture."""
    x, y = ((part > 2 / 3 - 0.02) - (part < 1 / 3 + 0.02) for part in box.middle)
    return _PLACES[int(x), int(y)]


def agrees(grid: Grid, depths: dict[int, int], relation: PlanRelation) -> bool:
    """Whether middles of cells, or depths, are as the relation says; true of words that say nothing of the two."""
    first, word, second = relation.plain
    if word == "in front of":
        return depths[first] < depths[second]
    if word not in ("left of", "above"):
        return True
    axis = 0 if word == "left of" else 1
    return middle_of_cells(grid, first)[axis] < middle_of_cells(grid, second)[axis]


def _groups(numbers: Sequence[int], pairs: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Number -> the first number of those that stand in its row."""
    group = {number: number for number in numbers}
    for first, second in pairs:
        old, new = sorted((group[first], group[second]), reverse=True)
        group = {number: new if leader == old else leader for number, leader in group.items()}
    return group


def _levels(members: Sequence[int], pairs: Sequence[tuple[int, int]], word: str) -> dict[int, int]:
    """The longest chain of pairs that ends at each member. Raises `SqueezeError` for a circle."""
    level = dict.fromkeys(members, 0)
    for _ in range(len(members) + 1):
        late = [(first, second) for first, second in pairs if level[second] <= level[first]]
        if not late:
            return level
        for first, second in late:
            level[second] = max(level[second], level[first] + 1)
    raise SqueezeError(f'The relations "{word}" go round in a circle. Leave one of them out.')


def _split(members: list[int], beside: Sequence[tuple[int, int]]) -> list[list[int]]:
    """A row of many subjects becomes several of at most four, unless words say that they stand side by side."""
    if len(members) <= _IN_A_ROW or any({*pair} <= {*members} for pair in beside):
        return [members]
    rows = -(-len(members) // _IN_A_ROW)
    bounds = [round(i * len(members) / rows) for i in range(rows + 1)]
    return [members[low:high] for low, high in pairwise(bounds)]


def _grid(rows: Sequence[Sequence[Sequence[int]]]) -> Grid:
    """Rows of columns, each shared by the numbers in it, as equal as 8 x 8 cells allow. Raises `SqueezeError`."""
    grid = [[BACKGROUND] * CELLS for _ in range(CELLS)]
    for top, bottom, row in _parts(0, CELLS, rows):
        for left, right, column in _parts(0, CELLS, row):
            for first, last, number in _parts(left, right, column):
                for line in grid[top:bottom]:
                    line[first:last] = [number] * (last - first)
    return tuple(map(tuple, grid))


def _parts(low: int, high: int, things: Sequence[Thing]) -> Iterator[tuple[int, int, Thing]]:
    """Equal parts of the cells from low to high, one for each thing."""
    if len(things) > high - low:
        raise SqueezeError(
            f"{len(things)} subjects or rows of them stand side by side in {high - low} cells of the grid; they do "
            "not fit. Leave some relations out."
        )
    bounds = [low + round(i * (high - low) / max(1, len(things))) for i in range(len(things) + 1)]
    yield from zip(bounds, bounds[1:], things)
