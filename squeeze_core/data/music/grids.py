"""Stage 8: regions become an 8 x 8 grid (section 3.3, lambda 0.05)."""

from __future__ import annotations

from collections.abc import Sequence

from ...planning.grid import Grid, cells_of_box, cells_of_mask, grid_from_cells
from .record import Outcome, Record, Subject, enough
from .work import Work


def run(records: Sequence[Record], model: None, work: Work) -> list[Outcome]:
    return [_one(record, work) for record in records]


def grid_of(subjects: Sequence[Subject], work: Work) -> Grid:
    """Of subjects 1, 2, ... in their order; of a cell that two claim the smaller has it."""
    cells = {
        number: cells_of_mask(work.mask(subject.mask)) if subject.mask else cells_of_box(subject.place)
        for number, subject in enumerate(subjects, start=1)
    }
    return grid_from_cells(cells)


def _one(record: Record, work: Work) -> Outcome:
    subjects, lost = record.subjects, tuple[str, ...]()
    while len(subjects) >= 2:
        grid = grid_of(subjects, work)
        shown = {label for row in grid for label in row}
        seen = tuple(subject for number, subject in enumerate(subjects, start=1) if number in shown)
        if len(seen) == len(subjects):
            return enough(record.model_copy(update={"grid": grid}), subjects, lost)
        lost = (*lost, *(f"hidden by others: {subject.name}" for subject in subjects if subject not in seen))
        subjects = seen
    return enough(record, subjects, lost)
