"""What the models of the stages must be able to do. One of each is in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ...planning.grid import Box
from ...planning.plan import PlanRelation
from .record import Record, Subject

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

Role = Literal["writer", "painter", "detector", "judge", "redrawer", "segmenter", "none"]


class Writer(Protocol):
    """An LLM."""

    def categories(self, record: Record, candidates: Sequence[str], fewest: int, most: int) -> list[str]:
        """Names of the candidates that go together in one picture."""
        ...

    def caption(self, record: Record) -> str:
        """Of a scene with one of each of the record's names."""
        ...


class Painter(Protocol):
    def paint(self, records: Sequence[Record]) -> list[Image]:
        """Pictures of the captions, by the records' own seeds."""
        ...


class Detector(Protocol):
    def find(self, record: Record, picture: Image, name: str) -> list[Box]:
        """Boxes of what the name says, best first."""
        ...


@dataclass(frozen=True)
class Judged:
    """same: whether the box shows what the name says. count: how many of it the whole picture shows."""

    same: bool
    count: int


@dataclass(frozen=True)
class Told:
    """What a VLM says of a target with numbered subjects. instruction and thought are sentences that name
    "picture n" and "subject n". captions and depths: one for each subject."""

    instruction: str
    thought: str
    scene: str
    captions: tuple[str, ...]
    relations: tuple[PlanRelation, ...]
    depths: tuple[int, ...]


class Judge(Protocol):
    """A VLM."""

    def verify(self, record: Record, picture: Image, subject: Subject) -> Judged: ...

    def tell(self, record: Record, picture: Image) -> Told: ...


class Redrawer(Protocol):
    def redraw(self, records: Sequence[Record], subjects: Sequence[Subject], crops: Sequence[Image]) -> list[Image]:
        """Another view of the subject of each crop; subjects[i] is of records[i]."""
        ...


class Segmenter(Protocol):
    """SAM2, and CLIP to choose between its masks and the boxes."""

    def mask(self, record: Record, picture: Image, subject: Subject) -> torch.Tensor:
        """[height, width] bool."""
        ...

    def prefers(self, record: Record, picture: Image, subject: Subject, mask: torch.Tensor) -> bool:
        """Whether the mask's region is more like the name than the box's."""
        ...


class Roles(Protocol):
    """Where models come from. Picklable: an executor may make its own elsewhere."""

    def names(self) -> Sequence[str]:
        """The categories."""
        ...

    def model(self, role: Role) -> Any:
        """Loaded, in place of the one that was there. Raises `SqueezeError`."""
        ...

    def described(self) -> dict[str, str]:
        """Role -> model, for the card."""
        ...
