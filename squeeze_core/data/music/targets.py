"""Stage 3: the target picture, painted from the caption."""

from __future__ import annotations

from collections.abc import Sequence

from .record import Kept, Outcome, Record
from .roles import Painter
from .work import Work


def run(records: Sequence[Record], painter: Painter, work: Work) -> list[Outcome]:
    return [
        Kept((record.model_copy(update={"target": work.keep(f"targets/{record.id}.png", picture)}),))
        for record, picture in zip(records, painter.paint(records))
    ]
