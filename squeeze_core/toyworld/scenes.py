"""The toy world's pictures: scenes with exact ground truth, each a pure function of a seed and an index.

pair(seed, index)    an identity in two poses, as UNO-1M has them, with a prompt that does not tell it
single(seed, index)  one scene with a caption that tells everything, to learn language and drawing from
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np

from . import language
from .backgrounds import BACKGROUNDS, painted
from .figures import COLOURS, FIGURES, OBJECTS, PATTERNS, SHAPES, Identity, Pose, own_frame

SIDE = 128
MOST_SUBJECTS = 3
SAMPLES = 3  # points a side of a pixel, for smooth edges
# Subjects stand on the grid of FLUX's tokens, 16 pixels wide, in two sizes and three turns, most of them upright:
# a token's part of a shape looks the same wherever the subject stands, which leaves a small FLUX less to learn.
TOKEN = 16 / SIDE
SIZES = {"small": 0.48, "large": 0.68}  # parts of the side: 61 and 87 pixels
_STEPS = {"small": 2, "large": 1}  # tokens from the middle to either side, where the subject stays inside
_TURNS = (0, 0, 0, -1, 1)  # of the furthest
STYLES = ("a photo of", "a drawing of", "a pixel art picture of")
ALL_STYLES = (("a photo of", 0.8), ("a drawing of", 0.1), ("a pixel art picture of", 0.1))
PHOTOS = (("a photo of", 1.0),)
PIXEL_ART_BLOCK = 4
_INK = (0.30, 0.18, 0.10)  # seen on black, too
_INK_WIDTH = 2.5 / SIDE
# Directions from the middle.
PLACES = {
    "in the middle": (0, 0), "at the top": (0, -1), "at the bottom": (0, 1), "on the left": (-1, 0),
    "on the right": (1, 0), "in the top left": (-1, -1), "in the top right": (1, -1),
    "in the bottom left": (-1, 1), "in the bottom right": (1, 1),
}  # fmt: skip
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
# Of a secondary object in its owner's frame: where, and how large beside the owner.
_WORN = {"hat": (0.0, -0.98, 0.62), "cup": (0.88, 0.42, 0.60), "flower": (0.80, -0.62, 0.60)}

Kind = Literal["one", "several", "reasoning"]
Split = Literal["train", "test"]
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Subject:
    """A figure in a pose. carries: a secondary object, drawn over the subject and moving with it."""

    identity: Identity
    pose: Pose
    carries: Identity | None = None


@dataclass(frozen=True)
class Scene:
    subjects: tuple[Subject, ...]
    background: str
    style: str = "a photo of"


@dataclass(frozen=True)
class Told:
    """What a prompt says about its picture, to be measured. None: not said.

    relation: of the first subject to the second.
    """

    background: str | None
    style: str | None
    place: str | None = None
    size: str | None = None
    relation: str | None = None


@dataclass(frozen=True)
class Pair:
    """references: scenes that show who is meant. target: the picture that the prompt asks for."""

    kind: Kind
    references: tuple[Scene, ...]
    target: Scene
    prompt: str
    told: Told


@dataclass(frozen=True)
class Single:
    scene: Scene
    caption: str
    told: Told


@dataclass(frozen=True)
class WorldOptions:
    """Which pictures there are.

    max_turn: degrees, to either side. carrying: share of single scenes, and of references, with a secondary
    object. kinds: shares of the kinds of pairs. counts: shares of one, two and three subjects in single scenes.
    styles: shares. split: every tenth identity belongs to "test" and is never drawn for "train".
    """

    max_turn: float = 20.0
    carrying: float = 0.1
    kinds: tuple[tuple[Kind, float], ...] = (("one", 0.8), ("several", 0.1), ("reasoning", 0.1))
    counts: tuple[float, float, float] = (0.75, 0.17, 0.08)
    styles: tuple[tuple[str, float], ...] = ALL_STYLES
    split: Split = "train"


def single(seed: int, index: int, options: WorldOptions = WorldOptions()) -> Single:
    """A scene of one to three subjects and its full caption."""
    draw = _Draw(seed, "single", index, options)
    count = draw.weighted(list(enumerate(options.counts, start=1)))
    told = draw.told(count)
    subjects = draw.placed([draw.identity() for _ in range(count)], told)
    if count == 1 and draw.chance(options.carrying):
        told = replace(told, place=None, size=None)
        subjects = (draw.carrying(subjects[0]),)
    scene = draw.scene(subjects, told)
    return Single(scene, language.caption(scene, told), told)


def pair(seed: int, index: int, options: WorldOptions = WorldOptions()) -> Pair:
    """References and a target that share identities, and the prompt that asks for the target."""
    draw = _Draw(seed, "pair", index, options)
    kind = draw.weighted(options.kinds)
    count = 2 if kind == "several" else 1
    told = draw.told(count)
    identities = [draw.identity() for _ in range(count)]
    references = [draw.reference(identity) for identity in identities]
    if kind == "reasoning" or (kind == "one" and draw.chance(options.carrying)):
        owner = draw.carrying(references[0].subjects[0])
        references = [replace(references[0], subjects=(owner,))]
        if kind == "reasoning":
            assert owner.carries is not None
            identities = [owner.carries]
    subjects = draw.placed(identities, told)
    while any(subject.pose == shown.subjects[0].pose for subject, shown in zip(subjects, references)):
        told = draw.told(count)  # place and size are all that a pose has where nothing is turned
        subjects = draw.placed(identities, told)
    target = draw.scene(subjects, told)
    return Pair(kind, tuple(references), target, language.prompt(kind, identities, told), told)


def several(seed: int, index: int, count: int, options: WorldOptions = WorldOptions()) -> Pair:
    """`count` subjects, 2 to 4, each with a reference of its own, in one target; else as `pair`."""
    draw = _Draw(seed, f"several {count}", index, options)
    told = draw.told(count)
    identities = [draw.identity() for _ in range(count)]
    while len(set(identities)) < count:
        identities = [draw.identity() for _ in range(count)]
    references = tuple(draw.reference(identity) for identity in identities)
    target = draw.scene(draw.placed(identities, told), told)
    return Pair("several", references, target, language.prompt("several", identities, told), told)


def render(scene: Scene, side: int = SIDE) -> np.ndarray:
    """[side, side, 3] uint8 RGB."""
    picture = painted(scene.background, side).copy()
    for identity, pose in figures(scene):
        _paint(picture, identity, pose, outlined=scene.style == "a drawing of")
    if scene.style == "a pixel art picture of":
        block = PIXEL_ART_BLOCK
        coarse = picture.reshape(side // block, block, side // block, block, 3).mean((1, 3))
        picture = coarse.repeat(block, 0).repeat(block, 1)
    return (picture * 255 + 0.5).astype(np.uint8)


def figures(scene: Scene) -> list[tuple[Identity, Pose]]:
    """Everything that is drawn, back to front: subjects, each followed by what it carries."""
    drawn = []
    for subject in scene.subjects:
        drawn.append((subject.identity, subject.pose))
        if subject.carries is not None:
            drawn.append((subject.carries, carried_pose(subject.carries, subject.pose)))
    return drawn


def carried_pose(carried: Identity, owner: Pose) -> Pose:
    """Where a secondary object is when its owner stands so."""
    x, y, size = _WORN[carried.shape]
    turn, radius = np.deg2rad(owner.angle), owner.size / 2
    return Pose(
        owner.x + radius * float(np.cos(turn) * x - np.sin(turn) * y),
        owner.y + radius * float(np.sin(turn) * x + np.cos(turn) * y),
        owner.size * size,
        owner.angle,
    )


def shares(identity: Identity, pose: Pose, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the picture (0 to 1) -> bool masks: inside the figure, and of its second colour."""
    u, v = own_frame(pose, x, y)
    return FIGURES[identity.shape](u, v), PATTERNS[identity.pattern](u, v)


def masks(scene: Scene, cells: int, points: int = 2) -> np.ndarray:
    """[2, cells, cells] float32: the share of each cell of the picture that figures cover, and that shows a
    second colour. points: a side of a cell.
    """
    axis = ((np.arange(cells * points) + 0.5) / (cells * points)).astype(np.float32)
    seen = np.zeros((2, cells * points, cells * points), np.float32)
    for identity, pose in figures(scene):
        inside, second = shares(identity, pose, axis[None, :], axis[:, None])
        seen[0] = np.maximum(seen[0], inside)
        seen[1] = np.where(inside, second & (identity.second is not None), seen[1])
    return seen.reshape(2, cells, points, cells, points).mean((2, 4))


def _paint(picture: np.ndarray, identity: Identity, pose: Pose, outlined: bool) -> None:
    side = picture.shape[0]
    radius = pose.size / 2 * 1.03
    left, right = _span(pose.x, radius, side)
    top, bottom = _span(pose.y, radius, side)
    if left >= right or top >= bottom:
        return
    x = ((np.arange(left * SAMPLES, right * SAMPLES) + 0.5)[None, :] / (side * SAMPLES)).astype(np.float32)
    y = ((np.arange(top * SAMPLES, bottom * SAMPLES) + 0.5)[:, None] / (side * SAMPLES)).astype(np.float32)
    inside, second = shares(identity, pose, x, y)
    patch = picture[top:bottom, left:right]
    patch *= 1 - _coverage(inside)
    if outlined:
        core = _core(identity, pose, x, y)
        patch += _coverage(inside & ~core) * np.array(_INK, np.float32)
        inside = inside & core
    patch += _coverage(inside & ~second) * np.array(COLOURS[identity.colour], np.float32)
    if identity.second is not None:
        patch += _coverage(inside & second) * np.array(COLOURS[identity.second], np.float32)


def _coverage(mask: np.ndarray) -> np.ndarray:
    """[rows * SAMPLES, columns * SAMPLES] bool -> [rows, columns, 1] float32, the share of each pixel."""
    total = np.zeros((mask.shape[0] // SAMPLES, mask.shape[1] // SAMPLES), np.float32)
    for i in range(SAMPLES):
        for j in range(SAMPLES):
            total += mask[i::SAMPLES, j::SAMPLES]
    return (total / SAMPLES**2)[..., None]


def _core(identity: Identity, pose: Pose, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Points so deep inside that the outline's ink does not reach them."""
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    shifted = ((x + _INK_WIDTH * np.cos(a), y + _INK_WIDTH * np.sin(a)) for a in around)
    return np.logical_and.reduce([shares(identity, pose, *points)[0] for points in shifted])


def _span(middle: float, radius: float, side: int) -> tuple[int, int]:
    low, high = np.floor((middle - radius) * side), np.ceil((middle + radius) * side)
    return max(int(low), 0), min(int(high), side)


@dataclass
class _Draw:
    """Random choices of one sample. `random.Random` of a text gives the same numbers everywhere."""

    seed: int
    purpose: str
    index: int
    options: WorldOptions
    numbers: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = random.Random(f"{self.seed}/{self.purpose}/{self.options.split}/{self.index}")

    def chance(self, share: float) -> bool:
        return self.numbers.random() < share

    def one_of(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self.numbers.random() * len(choices))]

    def weighted(self, choices: Sequence[tuple[Choice, float]]) -> Choice:
        left = self.numbers.random() * sum(share for _, share in choices)
        for choice, share in choices:
            left -= share
            if left < 0:
                return choice
        return choices[-1][0]

    def identity(self) -> Identity:
        while True:
            pattern = self.one_of(list(PATTERNS))
            colour = self.one_of(list(COLOURS))
            second = None
            if pattern != "plain":
                second = self.one_of([other for other in COLOURS if other != colour])
            identity = Identity(self.one_of(list(SHAPES)), colour, pattern, second)
            if held_out(identity) == (self.options.split == "test"):
                return identity

    def told(self, count: int) -> Told:
        told = Told(self.one_of(list(BACKGROUNDS)), self.weighted(self.options.styles))
        if count == 1:
            # Always: a FLUX as small as this one paints two half subjects where it has to choose.
            return replace(told, place=self.one_of(list(PLACES)), size=self.one_of(list(SIZES)))
        return replace(told, relation=self.one_of(list(RELATIONS))) if count == 2 else told

    def pose(self, x: float, y: float, size: float) -> Pose:
        return Pose(x, y, size, self.options.max_turn * self.one_of(_TURNS))

    def placed(self, identities: Sequence[Identity], told: Told) -> tuple[Subject, ...]:
        """Subjects that stand as told, whole and apart from each other."""
        poses = {1: self._alone, 2: self._two, 3: self._three, 4: self._four}[len(identities)](told)
        return tuple(Subject(identity, pose) for identity, pose in zip(identities, poses))

    def _alone(self, told: Told) -> list[Pose]:
        size = told.size or self.one_of(list(SIZES))
        place = PLACES[told.place or self.one_of(list(PLACES))]
        x, y = (0.5 + TOKEN * _STEPS[size] * way for way in place)
        return [self.pose(x, y, SIZES[size])]

    # What is not told is not free either: a FLUX as small as this paints a toy between the places it may have.
    def _two(self, told: Told) -> list[Pose]:
        right, down = RELATIONS[told.relation or "left of"]
        return [self.pose(0.5 + 2 * TOKEN * way * right, 0.5 + 2 * TOKEN * way * down, 0.44) for way in (1, -1)]

    def _three(self, told: Told) -> list[Pose]:
        corners = ((-2, -2), (2, -2), (0, 2))
        return [self.pose(0.5 + TOKEN * right, 0.5 + TOKEN * down, 0.42) for right, down in corners]

    def _four(self, told: Told) -> list[Pose]:
        """For measures only: no training has shown four."""
        corners = ((-2, -2), (2, -2), (-2, 2), (2, 2))
        return [self.pose(0.5 + TOKEN * right, 0.5 + TOKEN * down, 0.42) for right, down in corners]

    def reference(self, identity: Identity) -> Scene:
        """One subject somewhere, always as a photo."""
        told = Told(self.one_of(list(BACKGROUNDS)), "a photo of", self.one_of(list(PLACES)))
        return self.scene(self.placed([identity], told), told)

    def scene(self, subjects: tuple[Subject, ...], told: Told) -> Scene:
        assert told.background is not None and told.style is not None
        return Scene(subjects, told.background, told.style)

    def carrying(self, subject: Subject) -> Subject:
        """The subject with a secondary object of another colour, both whole in the picture."""
        own = (subject.identity.colour, subject.identity.second)
        colour = self.one_of([colour for colour in COLOURS if colour not in own])
        carried = Identity(self.one_of(list(OBJECTS)), colour)
        return Subject(subject.identity, self.pose(0.5 - TOKEN / 2, 0.5 + TOKEN / 2, 0.46), carried)


def held_out(identity: Identity) -> bool:
    """Whether an identity belongs to the test split: about every tenth, by its attributes alone."""
    number = 0
    for names, name in (
        (SHAPES, identity.shape),
        (COLOURS, identity.colour),
        (PATTERNS, identity.pattern),
        ((None, *COLOURS), identity.second),
    ):
        number = number * 31 + list(names).index(name)
    return number * 2654435761 % 2**32 // 7 % 10 == 0
