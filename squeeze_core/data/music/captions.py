"""Stage 2: an LLM describes one scene with all of the names, each once."""

from __future__ import annotations

from collections.abc import Sequence

from .record import Dropped, Kept, Outcome, Record
from .roles import Writer
from .work import Work

MOST_CHARACTERS = 1200  # FLUX's T5 reads 512 tokens


def run(records: Sequence[Record], writer: Writer, work: Work) -> list[Outcome]:
    return [checked(record, " ".join(writer.caption(record).split())) for record in records]


def checked(record: Record, caption: str) -> Outcome:
    said = caption.lower()
    if not caption or len(caption) > MOST_CHARACTERS:
        return Dropped("an empty caption, or one that is too long")
    if any(name.lower() not in said for name in record.names):
        return Dropped("a caption that leaves a name out")
    return Kept((record.model_copy(update={"caption": caption}),))
