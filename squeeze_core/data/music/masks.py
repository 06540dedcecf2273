"""Stage 7: a subject's region: its mask, if that is more like its name than its box is (section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from .record import Kept, Outcome, Record
from .roles import Segmenter
from .work import Work


def run(records: Sequence[Record], segmenter: Segmenter, work: Work) -> list[Outcome]:
    return [_one(record, segmenter, work) for record in records]


def _one(record: Record, segmenter: Segmenter, work: Work) -> Outcome:
    picture, subjects, lost = work.picture(record.target), [], []
    for number, subject in enumerate(record.subjects, start=1):
        mask = segmenter.mask(record, picture, subject)
        if bool(mask.any()) and segmenter.prefers(record, picture, subject, mask):
            name = work.keep_mask(f"masks/{record.id}_{number}.png", mask)
            subject = subject.model_copy(update={"mask": name})
        else:
            lost.append(f"a mask that is no better than the box: {subject.name}")
        subjects.append(subject)
    return Kept((record.model_copy(update={"subjects": tuple(subjects)}),), tuple(lost))
