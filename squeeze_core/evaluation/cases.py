"""What a benchmark asks for: a prompt, reference pictures, the words for what they show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SqueezeError
from .pictures import Problem


@dataclass(frozen=True)
class Subject:
    """One thing whose identity is to be kept.

    words: what it is, for a detector and for prompts ("stuffed animal"). references: its pictures; the first
    is the one that goes into generation.
    """

    name: str
    words: str
    references: tuple[Path, ...]


@dataclass(frozen=True)
class Sample:
    """One case: a prompt about one or more subjects.

    subject: name of the case's group, which is also the folder of its pictures; for several subjects it names
        all of them. prompt: number within the group, from 0. text: the prompt as generation and CLIP-T get it.
    category: "object", "live", "animal", ... where the benchmark says so.
    """

    subject: str
    prompt: int
    text: str
    subjects: tuple[Subject, ...]
    category: str = ""

    def __post_init__(self) -> None:
        # Half of a sign, of a text that was cut in the middle of an emoji: no tokenizer takes it.
        whole = self.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        object.__setattr__(self, "text", whole)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The references given to the generator: the first of each subject."""
        return tuple(subject.references[0] for subject in self.subjects)


@dataclass
class Benchmark:
    """All cases of a benchmark, as read from the user's copy of its data.

    seeds: pictures a case. source: where the data came from. notes: what a reader of the scores must know.
    problems: reference files that could not be used.
    """

    name: str
    samples: list[Sample]
    seeds: int = 4
    source: str = ""
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def find(self, subject: str, prompt: int) -> Sample | None:
        return self._index().get((subject.casefold(), prompt))

    def find_text(self, subject: str, text: str) -> Sample | None:
        wanted = plain(text)
        return next((s for s in self.of(subject) if plain(s.text) == wanted), None)

    def of(self, subject: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.subject.casefold() == subject.casefold()]

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(sample.subject for sample in self.samples))

    def cases(self) -> Iterator[tuple[Sample, int]]:
        """Every picture that the benchmark asks for: sample and seed."""
        return ((sample, seed) for sample in self.samples for seed in range(self.seeds))

    def _index(self) -> dict[tuple[str, int], Sample]:
        return {(sample.subject.casefold(), sample.prompt): sample for sample in self.samples}


def folder_name(text: str) -> str:
    """A name that every file system takes: letters, digits, "-" and "_"."""
    flat = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9-]+", "_", flat).strip("_") or "subject"


def plain(text: str) -> str:
    """A prompt for comparing: case, white space and a final full stop do not count."""
    return " ".join(text.split()).rstrip(".").casefold()


def require(
    samples: Sequence[Sample], what: str, where: Path, problems: Sequence[Problem] = (), hint: str = ""
) -> None:
    """Raises `SqueezeError` when a reader found no case at all; the first problem and the hint say why."""
    if not samples:
        why = f" ({len(problems)} problems, first {problems[0]})" if problems else ""
        hint = hint or "Check that the copy of the benchmark is whole."
        raise SqueezeError(f'"{where}" holds no case of {what}{why}. {hint}')
