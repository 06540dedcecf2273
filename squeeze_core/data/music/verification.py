"""Stage 5: a VLM says whether each box shows what its name says, and whether the picture shows it once."""

from __future__ import annotations

from collections.abc import Sequence

from .record import Outcome, Record, enough
from .roles import Judge
from .work import Work


def run(records: Sequence[Record], judge: Judge, work: Work) -> list[Outcome]:
    return [_one(record, judge, work) for record in records]


def _one(record: Record, judge: Judge, work: Work) -> Outcome:
    picture, kept, lost = work.picture(record.target), [], []
    for subject in record.subjects:
        verdict = judge.verify(record, picture, subject)
        if not verdict.same:
            lost.append(f"a box of something else: {subject.name}")
        elif verdict.count != 1:
            lost.append(f"not once in the picture: {subject.name}")
        else:
            kept.append(subject)
    return enough(record, tuple(kept), tuple(lost))
