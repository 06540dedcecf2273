"""What is known of a sample, from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from ...planning.grid import Box, Grid

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Subject(BaseModel):
    """name: of its category. box: left, top, width, height as parts of the target. reference: another view of it,
    and mask: its region of the target, files below the build's folder; no mask where the box is the region."""

    model_config = _FROZEN

    name: str
    box: tuple[float, float, float, float] | None = None
    reference: str | None = None
    mask: str | None = None

    @property
    def place(self) -> Box:
        assert self.box is not None
        return Box(*self.box)

    @property
    def area(self) -> float:
        return self.place.width * self.place.height


class Record(BaseModel):
    """id: its name in all stages; number: what its random draws depend on, the same for all that come of one.

    target: the picture, a file below the build's folder. prompt: the instruction, which names pictures by number.
    plan: a `ScenePlan` as JSON; subject n shows picture n.
    """

    model_config = _FROZEN

    id: str
    number: int
    names: tuple[str, ...] = ()
    caption: str = ""
    target: str = ""
    subjects: tuple[Subject, ...] = ()
    grid: Grid | None = None
    prompt: str = ""
    plan: dict[str, Any] | None = None


@dataclass(frozen=True)
class Kept:
    """records: what a record became, one but in decimation. lost: what of it went: "no box: red star"."""

    records: tuple[Record, ...]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dropped:
    """reason, and what stands before ":" in `lost`: the same words for the same kind of fault, to be counted."""

    reason: str
    lost: tuple[str, ...] = ()


Outcome = Kept | Dropped


def enough(record: Record, subjects: tuple[Subject, ...], lost: tuple[str, ...]) -> Outcome:
    """The record with those subjects that are left; a scene has at least two."""
    if len(subjects) < 2:
        return Dropped("fewer than two subjects are left", lost)
    return Kept((record.model_copy(update={"subjects": subjects}),), lost)
