"""How well a toy picture does what was asked: identity, prompt following, pose variation.

Exact in the sense that nothing is learned: `reading` recognises what the picture shows, and this file compares
it with the ground truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .figures import OBJECTS, Identity, Pose
from .reading import Found, Reading, read, turn_between
from .scenes import Pair, Scene, Told, render

SIDEWAYS = 0.065  # of the picture's side: further from the middle is left, right, top or bottom
SMALL = 0.53  # a diameter below is small, above is large
# Differences of pose that count as a wholly different one.
_FAR, _SCALED, _TURNED = 0.25, math.log(1.5), 20.0


@dataclass(frozen=True)
class Scores:
    """All from 0 to 1, of one picture.

    identity: share of attributes that are right (shape, colour, pattern, second colour), mean over the subjects
        asked for; a subject that is not there has 0. exact: whether all of them are right for every subject.
    prompt: share of what was told that is so: background, place, size, relation, style, number of subjects.
    pose_variation: how much the first subject's pose differs from its reference's; 0 is a copy. None where there
        is nothing to compare: no subject of that shape, or the reasoning case.
    """

    identity: float
    exact: bool
    prompt: float
    pose_variation: float | None


def score(picture: np.ndarray, pair: Pair) -> Scores:
    """Measure a picture made for a pair. picture: [128, 128, 3] uint8."""
    reading = read(picture)
    wanted = [subject.identity for subject in pair.target.subjects]
    order = matched(reading.subjects, wanted)
    shares = [identity_share(found, identity) for found, identity in zip(order, wanted)]
    variation = None
    if pair.kind != "reasoning" and order[0] is not None and order[0].identity.shape == wanted[0].shape:
        variation = _from_reference(order[0], pair.references[0])
    told = list(follows(reading, pair.told, order).values())
    return Scores(sum(shares) / len(shares), min(shares) == 1.0, sum(told) / len(told), variation)


def identity_share(found: Found | None, truth: Identity) -> float:
    """Share of the attributes that are right: of four, or of two for secondary objects (kind and colour)."""
    if found is None:
        return 0.0
    names = ("shape", "colour") if truth.shape in OBJECTS else ("shape", "colour", "pattern", "second")
    return sum(getattr(found.identity, name) == getattr(truth, name) for name in names) / len(names)


def matched(subjects: Sequence[Found], wanted: Sequence[Identity]) -> list[Found | None]:
    """For each identity the subject that shows it, so that as many attributes as can be are right."""
    candidates: list[Found | None] = [*subjects[:5], *[None] * len(wanted)]
    orders = permutations(candidates, len(wanted))
    return list(max(orders, key=lambda order: sum(identity_share(*both) for both in zip(order, wanted))))


def follows(reading: Reading, told: Told, order: Sequence[Found | None]) -> dict[str, bool]:
    """Each thing that was told, and whether the picture shows it. order: the subjects as asked for."""
    poses = [found.pose if found is not None else None for found in order]
    first = poses[0]
    result = {"count": len(reading.subjects) == len(order)}
    if told.background is not None:
        result["background"] = reading.background == told.background
    if told.style is not None:
        result["style"] = reading.style == told.style
    if told.place is not None:
        result["place"] = first is not None and place(first) == told.place
    if told.size is not None:
        result["size"] = first is not None and ("small" if first.size < SMALL else "large") == told.size
    if told.relation is not None:
        result["relation"] = None not in poses[:2] and relation(poses[0], poses[1]) == told.relation  # type: ignore
    return result


def place(pose: Pose) -> str:
    """The place in `scenes.PLACES` where a subject stands."""
    names = {
        (0, 0): "in the middle", (0, -1): "at the top", (0, 1): "at the bottom", (-1, 0): "on the left",
        (1, 0): "on the right", (-1, -1): "in the top left", (1, -1): "in the top right",
        (-1, 1): "in the bottom left", (1, 1): "in the bottom right",
    }  # fmt: skip
    right, down = (0 if abs(offset) < SIDEWAYS else int(math.copysign(1, offset)) for offset in _offsets(pose))
    return names[right, down]


def relation(a: Pose, b: Pose) -> str:
    """Where a is, seen from b, along the axis that parts them more."""
    dx, dy = a.x - b.x, a.y - b.y
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def pose_difference(shape: str, a: Pose, b: Pose) -> float:
    """0 for the same pose to 1: the mean of shift, scale and turn, each up to a wholly different one.

    A shape that looks the same at every turn has no turn to differ in.
    """
    parts = [
        min(1.0, math.hypot(a.x - b.x, a.y - b.y) / _FAR),
        min(1.0, abs(math.log(max(a.size, 0.05) / max(b.size, 0.05))) / _SCALED),
    ]
    if turn_between(shape, 0.0, 10.0) > 0:
        parts.append(min(1.0, turn_between(shape, a.angle, b.angle) / _TURNED))
    return sum(parts) / len(parts)


def _from_reference(found: Found, reference: Scene) -> float:
    """Against the reference as it reads, not as it was drawn: so a copy differs by exactly nothing."""
    shown = read(render(reference)).subjects
    if not shown:
        raise ValueError("The reference shows no subject.")
    truth = reference.subjects[0]
    same = max(shown, key=lambda other: -math.hypot(other.pose.x - truth.pose.x, other.pose.y - truth.pose.y))
    return pose_difference(truth.identity.shape, found.pose, same.pose)


def _offsets(pose: Pose) -> tuple[float, float]:
    return pose.x - 0.5, pose.y - 0.5
