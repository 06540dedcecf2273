"""Stage 6: of each subject another view, so that nothing can be learned by copying the crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .record import Kept, Outcome, Record, Subject
from .roles import Redrawer
from .work import Work

if TYPE_CHECKING:
    from PIL.Image import Image


def run(records: Sequence[Record], redrawer: Redrawer, work: Work) -> list[Outcome]:
    whose, subjects, crops = [], [], []
    for record in records:
        picture = work.picture(record.target)
        for subject in record.subjects:
            whose.append(record)
            subjects.append(subject)
            crops.append(cut(picture, subject))
    views = iter(redrawer.redraw(whose, subjects, crops))
    found: list[Outcome] = []
    for record in records:
        shown = tuple(
            subject.model_copy(update={"reference": work.keep(f"references/{record.id}_{number}.png", next(views))})
            for number, subject in enumerate(record.subjects, start=1)
        )
        found.append(Kept((record.model_copy(update={"subjects": shown}),)))
    return found


def cut(picture: Image, subject: Subject) -> Image:
    """What the subject's box shows."""
    box, width, height = subject.place, picture.width, picture.height
    left, top = math.floor(box.left * width), math.floor(box.top * height)
    right, bottom = math.ceil(box.right * width), math.ceil(box.bottom * height)
    return picture.crop((max(0, left), max(0, top), min(width, right), min(height, bottom)))
