"""The toy world in place of every model of MUSIC's data pipeline: exact answers, but for the noise asked for.

So it is known of every record what a filter should have caught, see `quality`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from ..data.music.build import STAGES
from ..data.music.config import MusicConfig, ToyModels
from ..data.music.ledger import Ledger
from ..data.music.record import Record, Subject
from ..data.music.roles import Judged, Role, Told
from ..draws import Draws
from ..errors import SqueezeError
from ..planning.grid import Box
from ..planning.plan import PlanRelation
from ..vision.detector import overlap
from . import language, measures, scenes
from .figures import COLOURS, PATTERNS, SHAPES, Identity, Pose
from .scenes import Pair, Scene, WorldOptions

if TYPE_CHECKING:
    from PIL.Image import Image

Fault = Literal[
    "unknown name",
    "name left out",
    "absent",
    "another",
    "twin",
    "astray",
    "too small",
    "misjudged",
    "bad mask",
    "false relation",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
OPTIONS = WorldOptions(max_turn=0, carrying=0, styles=scenes.PHOTOS)
_UNKNOWN = "unicorn"


class ToyRoles:
    """Every role at once. Raises `SqueezeError` for a noise that it does not know."""

    def __init__(self, config: MusicConfig) -> None:
        assert isinstance(config.models, ToyModels)
        unknown = [name for name in config.models.noise if name not in FAULTS]
        if unknown:
            raise SqueezeError(f'The toy world has no noise "{unknown[0]}". It has {", ".join(FAULTS)}.')
        if config.resolution != scenes.SIDE or config.subjects[1] > 4:
            raise SqueezeError(
                f"The toy world paints 2 to 4 toys on {scenes.SIDE} pixels: set subjects and resolution."
            )
        noise = tuple((fault, config.models.noise.get(fault, 0.0)) for fault in FAULTS)
        self.truths = Truths(config.seed, noise, config.subjects)

    def names(self) -> Sequence[str]:
        colours, patterns = tuple(COLOURS), tuple(PATTERNS)
        plain = [Identity(shape, colour) for shape, colour in product(SHAPES, colours)]
        others = [
            Identity(shape, colour, pattern, second)
            for shape, colour, pattern, second in product(SHAPES, colours, patterns, colours)
            if pattern != "plain" and second != colour
        ]
        return [named(identity) for identity in (*plain, *others)]

    def model(self, role: Role) -> Any:
        return None if role == "none" else self.truths

    def described(self) -> dict[str, str]:
        return {
            "all": "the toy world" + "".join(f", {fault} {share:g}" for fault, share in self.truths.noise if share)
        }


@dataclass(frozen=True)
class Truths:
    """What is true of each record, by its number, and the answers of all models."""

    seed: int
    noise: tuple[tuple[Fault, float], ...]
    subjects: tuple[int, int]

    def pair(self, number: int) -> Pair:
        """Whom a record is about, with a reference of each."""
        fewest, most = self.subjects
        count = fewest + Draws(self.seed).integer("toys", number, most - fewest + 1)
        return scenes.several(self.seed, number, count, OPTIONS)

    def has(self, fault: Fault, number: int, of: int = 0) -> bool:
        """Whether an answer on a record, or on one of its subjects, is wrong."""
        return Draws(self.seed).chance(f"{fault}/{of}", number, dict(self.noise).get(fault, 0.0))

    def painted(self, number: int) -> Scene:
        """What the target shows, with the painter's mistakes."""
        return _painted(self, number)

    # Writer

    def categories(self, record: Record, candidates: Sequence[str], fewest: int, most: int) -> list[str]:
        names = [named(subject.identity) for subject in self.pair(record.number).target.subjects]
        return [*names[1:], _UNKNOWN] if self.has("unknown name", record.number) else names

    def caption(self, record: Record) -> str:
        pair = self.pair(record.number)
        names = record.names[1:] if self.has("name left out", record.number) else record.names
        things = ", ".join(f"a {name}" for name in names)
        return f"a photo of {things}, {pair.told.background}"

    # Painter

    def paint(self, records: Sequence[Record]) -> list[Image]:
        from PIL import Image as pil

        return [pil.fromarray(scenes.render(self.painted(record.number))) for record in records]

    # Detector

    def find(self, record: Record, picture: Image, name: str) -> list[Box]:
        """A detector is easily content: where another toy was painted in one's place, it takes that."""
        wanted = [named(subject.identity) for subject in self.pair(record.number).target.subjects]
        of = wanted.index(name)
        if self.has("too small", record.number, of):
            return [Box(0.5, 0.5, 0.05, 0.05)]
        if self.has("astray", record.number, of):
            return [Box(0.0, 0.0, 0.25, 0.2)]
        painted = self.painted(record.number).subjects
        shown = [box_of(subject.pose) for subject in painted if named(subject.identity) == name]
        if not shown and self.has("another", record.number, of):
            shown = [box_of(self.pair(record.number).target.subjects[of].pose)]
        return shown

    # Judge

    def verify(self, record: Record, picture: Image, subject: Subject) -> Judged:
        shown = [each for each in self.painted(record.number).subjects if named(each.identity) == subject.name]
        same = any(overlap(box_of(each.pose), subject.place) > 0.5 for each in shown)
        of = [named(each.identity) for each in self.pair(record.number).target.subjects].index(subject.name)
        if self.has("misjudged", record.number, of):
            return Judged(not same, 1)
        return Judged(same, len(shown))

    def tell(self, record: Record, picture: Image) -> Told:
        pair = self.pair(record.number)
        whom = {named(subject.identity): subject for subject in pair.target.subjects}
        poses = [whom[subject.name].pose for subject in record.subjects]
        places, numbers = [measures.place(pose) for pose in poses], range(1, len(poses) + 1)
        size = "small "  # as toys in company are
        sentences = [f"the {size}toy of picture {number} {place}." for number, place in zip(numbers, places)]
        thoughts = [
            f"subject {number} is the {s.name}, {p}." for number, s, p in zip(numbers, record.subjects, places)
        ]
        apart = [(poses[a].x - poses[b].x, a, b) for a in range(len(poses)) for b in range(a)]
        away, a, b = max(apart, key=lambda each: abs(each[0]))
        relations = []
        if abs(away) > 0.15:
            left = (away < 0) != self.has("false relation", record.number)
            relations = [PlanRelation(subject=a + 1, relation="left of" if left else "right of", object=b + 1)]
        captions = tuple(f"a photo of the {size}toy, {place}, {pair.told.background}" for place in places)
        scene = pair.told.background or ""
        return Told(
            " ".join([*sentences, scene]), " ".join(thoughts), scene, captions, tuple(relations), (1,) * len(poses)
        )

    # Redrawer

    def redraw(self, records: Sequence[Record], subjects: Sequence[Subject], crops: Sequence[Image]) -> list[Image]:
        from PIL import Image as pil

        views = []
        for record, subject in zip(records, subjects):
            pair = self.pair(record.number)
            of = [named(each.identity) for each in pair.target.subjects].index(subject.name)
            views.append(pil.fromarray(scenes.render(pair.references[of])))
        return views

    # Segmenter

    def mask(self, record: Record, picture: Image, subject: Subject) -> torch.Tensor:
        if self.has("bad mask", record.number, self._of(record, subject)):
            spoiled = torch.zeros(scenes.SIDE, scenes.SIDE, dtype=torch.bool)
            spoiled[: scenes.SIDE // 2] = True
            return spoiled
        return self._true_mask(record, subject)

    def prefers(self, record: Record, picture: Image, subject: Subject, mask: torch.Tensor) -> bool:
        box, side = subject.place, scenes.SIDE
        boxed = torch.zeros(side, side, dtype=torch.bool)
        boxed[int(box.top * side) : int(box.bottom * side), int(box.left * side) : int(box.right * side)] = True
        true = self._true_mask(record, subject)
        return _iou(mask, true) > _iou(boxed, true)

    def _true_mask(self, record: Record, subject: Subject) -> torch.Tensor:
        scene = self.pair(record.number).target
        alone = replace(scene, subjects=(scene.subjects[self._of(record, subject)],))
        return torch.from_numpy(scenes.masks(alone, scenes.SIDE)[0]) > 0.5

    def _of(self, record: Record, subject: Subject) -> int:
        return [named(each.identity) for each in self.pair(record.number).target.subjects].index(subject.name)


# Stage -> the faults that it is there to catch, of a record or of one of its subjects.
OF_RECORDS: dict[str, Fault] = {
    "categories": "unknown name",
    "captions": "name left out",
    "thoughts": "false relation",
}
OF_SUBJECTS: dict[str, tuple[Fault, ...]] = {
    "boxes": ("absent", "too small"),
    "verification": ("another", "twin", "astray"),
    "masks": ("bad mask",),
}


@dataclass(frozen=True)
class Quality:
    """Of a filter, against the truth: faults caught, sound ones taken for faults, faults missed."""

    caught: int = 0
    wronged: int = 0
    missed: int = 0

    @property
    def precision(self) -> float | None:
        found = self.caught + self.wronged
        return self.caught / found if found else None

    @property
    def recall(self) -> float | None:
        faults = self.caught + self.missed
        return self.caught / faults if faults else None


def quality(out: Path, truths: Truths) -> dict[str, Quality]:
    """Of every filter of a build of the toy world, by its ledgers."""
    ledgers = {
        stage.name: Ledger(out / "stages" / f"{place:02d}_{stage.name}.jsonl")
        for place, stage in enumerate(STAGES, start=1)
    }
    before = dict(zip((stage.name for stage in STAGES[1:]), (stage.name for stage in STAGES)))
    found = {}
    for name, fault in OF_RECORDS.items():
        judged = []
        for row in ledgers[name].rows():
            faulty = truths.has(fault, int(row["id"]))
            if name == "thoughts":
                told = [relation for each in row.get("kept", ()) for relation in each["plan"]["relations"]]
                if not told and "lost" not in row:
                    continue  # nothing was said that could be false
            judged.append((faulty, "dropped" in row or "lost" in row))
        found[name] = _counted(judged)
    for name, faults in OF_SUBJECTS.items():
        given = {record.id: record for record in ledgers[before[name]].kept()}
        judged = []
        for row in ledgers[name].rows():
            record = given[row["id"]]
            lost = {each.partition(": ")[2] for each in row.get("lost", ())}
            whom = [named(subject.identity) for subject in truths.pair(record.number).target.subjects]
            here = [subject.name for subject in record.subjects] or list(record.names)
            judged += [
                (any(truths.has(fault, record.number, whom.index(each)) for fault in faults), each in lost)
                for each in here
            ]
        found[name] = _counted(judged)
    return found


def _counted(judged: Sequence[tuple[bool, bool]]) -> Quality:
    """(a fault, taken for one) each."""
    return Quality(judged.count((True, True)), judged.count((False, True)), judged.count((True, False)))


@lru_cache(maxsize=4096)
def _painted(truths: Truths, number: int) -> Scene:
    target, subjects = truths.pair(number).target, []
    for of, subject in enumerate(target.subjects):
        if truths.has("absent", number, of):
            continue
        if truths.has("another", number, of):
            others = [shape for shape in SHAPES if shape != subject.identity.shape]
            subject = replace(subject, identity=replace(subject.identity, shape=others[number % len(others)]))
        subjects.append(subject)
        if truths.has("twin", number, of):
            aside = replace(subject.pose, x=1 - subject.pose.x, y=1 - subject.pose.y)
            subjects.append(replace(subject, pose=aside))
    return replace(target, subjects=tuple(subjects))


def named(identity: Identity) -> str:
    """ "red and blue striped star"."""
    return language.description(identity).partition(" ")[2]


def box_of(pose: Pose) -> Box:
    left, top = max(0.0, pose.x - pose.size / 2), max(0.0, pose.y - pose.size / 2)
    return Box(left, top, min(1.0, pose.x + pose.size / 2) - left, min(1.0, pose.y + pose.size / 2) - top)


def _iou(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one & other).sum() / (one | other).sum().clamp_min(1))
