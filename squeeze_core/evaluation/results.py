"""What every measure gives back: scores of single pictures, and how they are averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .pictures import Problem

if TYPE_CHECKING:
    from .generated_files import Generated


@dataclass(frozen=True)
class Metric:
    """A column of the report. key: in the JSON. title: in tables. digits: behind the point in tables."""

    key: str
    title: str
    higher_is_better: bool
    digits: int = 4
    unit: str = ""


@dataclass(frozen=True)
class PictureScore:
    """Scores of one generated picture.

    file: as the user knows it, relative to the folder scored. prompt: its number in the benchmark, from 0.
    scores: by metric key; None or absent is missing, never zero. weights: how many things (pairs with
        references, subjects) a score is the mean of; 1 where nothing is said.
    details: what else is known of the picture (angles, boxes), for the JSON report. category: as `Sample`'s.
    """

    file: str
    subject: str
    prompt: int
    seed: int
    scores: Mapping[str, float | None]
    weights: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    references: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    category: str = ""

    @classmethod
    def of(
        cls,
        picture: Generated,
        scores: Mapping[str, float | None],
        references: Iterable[Path] | None = None,
        weights: Mapping[str, float] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> PictureScore:
        """Of a generated picture, with all that its sample says. references: None are the sample's inputs."""
        sample = picture.sample
        used = sample.inputs if references is None else references
        return cls(
            picture.name,
            sample.subject,
            sample.prompt,
            picture.seed,
            scores,
            weights or {},
            sample.text,
            # A reference lies in a folder of its own, so that a bare name would not tell which it is.
            tuple(f"{path.parent.name}/{path.name}" for path in used),
            details or {},
            sample.category,
        )

    @property
    def key(self) -> tuple[str, int, int]:
        """What makes two pictures of two runs the same case."""
        return self.subject, self.prompt, self.seed

    def weight(self, metric: str) -> float:
        return self.weights.get(metric, 1.0)

    def score(self, metric: str) -> float | None:
        value = self.scores.get(metric)
        return None if value is None or not math.isfinite(value) else float(value)


@dataclass
class Result:
    """One measure over one folder of pictures.

    backbones: `BackboneSpec.as_dict()` of every model that took part. settings: choices of the protocol that
    the numbers depend on. notes: sentences the reader of the table must know. asked: how many pictures the
    benchmark has, None if it does not say. table: the key of `published.TABLES` that our row belongs to.
    """

    benchmark: str
    metrics: tuple[Metric, ...]
    pictures: list[PictureScore]
    problems: list[Problem] = field(default_factory=list)
    backbones: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    asked: int | None = None
    table: str | None = None
    label: str = "This run"

    def mean(self, metric: str) -> float | None:
        return weighted_mean((p.score(metric), p.weight(metric)) for p in self.pictures)

    def counted(self, metric: str) -> int:
        """Pictures that have this score."""
        return sum(picture.score(metric) is not None for picture in self.pictures)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def weighted_mean(pairs: Iterable[tuple[float | None, float]]) -> float | None:
    """Mean of (value, weight); None values are left out; None when nothing is left."""
    kept = [(value, weight) for value, weight in pairs if value is not None and weight > 0]
    total = math.fsum(weight for _, weight in kept)
    return math.fsum(value * weight for value, weight in kept) / total if total else None


def from_dict(data: Mapping[str, Any]) -> Result:
    """The inverse of `Result.as_dict`, for comparing with an earlier report. Raises KeyError, TypeError."""
    known = dict(data)
    pictures = [
        PictureScore(**{**row, "references": tuple(row.get("references", ()))}) for row in known.pop("pictures")
    ]
    metrics = tuple(Metric(**row) for row in known.pop("metrics"))
    problems = [Problem(**row) for row in known.pop("problems", [])]
    return Result(metrics=metrics, pictures=pictures, problems=problems, **known)
