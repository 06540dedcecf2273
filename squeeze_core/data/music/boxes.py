"""Stage 4: where each of the names is, the best box of those that are large enough."""

from __future__ import annotations

from collections.abc import Sequence

from .record import Outcome, Record, Subject, enough
from .roles import Detector
from .work import Work


def run(records: Sequence[Record], detector: Detector, work: Work) -> list[Outcome]:
    return [_one(record, detector, work) for record in records]


def _one(record: Record, detector: Detector, work: Work) -> Outcome:
    picture, subjects, lost = work.picture(record.target), [], []
    for name in record.names:
        found = detector.find(record, picture, name)
        large = [box for box in found if box.width * box.height >= work.config.min_area]
        if large:
            best = large[0]
            subjects.append(Subject(name=name, box=(best.left, best.top, best.width, best.height)))
        else:
            lost.append(f"{'a box that is too small' if found else 'no box'}: {name}")
    return enough(record, tuple(subjects), tuple(lost))
