"""Stage 1: names that go together in one picture, chosen by an LLM from a random handful of the list."""

from __future__ import annotations

from collections.abc import Sequence

from .record import Dropped, Kept, Outcome, Record
from .roles import Writer
from .work import Work


def run(records: Sequence[Record], writer: Writer, work: Work) -> list[Outcome]:
    fewest, most = work.config.subjects
    return [
        checked(record, writer.categories(record, candidates(record, work), fewest, most), work)
        for record in records
    ]


def candidates(record: Record, work: Work) -> list[str]:
    """Of the whole list, by the record's own draw."""
    order = work.draws.generator("candidates", record.number).permutation(len(work.names))
    return [work.names[number] for number in order[: work.config.candidates]]


def checked(record: Record, names: Sequence[str], work: Work) -> Outcome:
    fewest, most = work.config.subjects
    known = set(work.names)
    if any(name not in known for name in names):
        return Dropped("a name that is not in the list")
    if len(set(names)) < len(names):
        return Dropped("a name twice")
    if not fewest <= len(names) <= most:
        return Dropped("too few or too many names")
    return Kept((record.model_copy(update={"names": tuple(names)}),))
