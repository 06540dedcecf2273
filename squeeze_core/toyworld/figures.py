"""What the toy world's subjects look like: shapes, patterns and colours as exact functions of a point.

Points are in the subject's own frame: x to the right, y down, the shape inside the unit circle. Everything here
is numpy and pure; `scenes` puts figures into pictures, `measures` recognises them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Mask = np.ndarray  # bool or float, of the points' shape
Plane = Callable[[np.ndarray, np.ndarray], Mask]

# The subjects' colours, told apart from each other and from every background. RGB, 0 to 1.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.10, 0.12),
    "orange": (1.00, 0.55, 0.00),
    "yellow": (1.00, 0.92, 0.16),
    "green": (0.05, 0.60, 0.16),
    "cyan": (0.00, 0.85, 0.88),
    "blue": (0.08, 0.24, 0.88),
    "purple": (0.50, 0.10, 0.62),
    "pink": (1.00, 0.50, 0.78),
    "white": (0.99, 0.99, 0.99),
    "black": (0.05, 0.05, 0.05),
}


def _radius(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.sqrt(x * x + y * y)  # hypot guards against overflow, and takes five times as long


def _polygon(*corners: tuple[float, float]) -> Plane:
    """The inside of a convex polygon, corners clockwise as seen on the screen."""

    def inside(x: np.ndarray, y: np.ndarray) -> Mask:
        mask = np.ones(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
            mask &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
        return mask

    return inside


def _star(x: np.ndarray, y: np.ndarray) -> Mask:
    """Five points; straight edges between the outer radius 1 and the inner one."""
    inner = 0.52
    sector = 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)  # from the nearest point's axis
    px, py = _radius(x, y) * np.cos(angle), _radius(x, y) * np.sin(angle)
    cx, cy = inner * np.cos(sector / 2), inner * np.sin(sector / 2)
    return cy * (px - 1) - (cx - 1) * py <= 0


def _heart(x: np.ndarray, y: np.ndarray) -> Mask:
    """Two lobes and their tangents down to the tip."""
    lobes = _radius(np.abs(x) - 0.42, y + 0.33) <= 0.46
    above_tip = np.abs(x) * 1.27 + y <= 0.95
    return (
        lobes | (above_tip & (np.abs(x) <= 0.78) & (y >= -0.05)) | (above_tip & (np.abs(x) <= 0.42) & (y >= -0.33))
    )


def _cross(x: np.ndarray, y: np.ndarray) -> Mask:
    arm, length = 0.34, 0.92
    return ((np.abs(x) <= arm) & (np.abs(y) <= length)) | ((np.abs(y) <= arm) & (np.abs(x) <= length))


def _hat(x: np.ndarray, y: np.ndarray) -> Mask:
    crown = (np.abs(x) <= 0.46 + 0.08 * y) & (y >= -0.70) & (y <= 0.40)
    brim = (np.abs(x) <= 0.90) & (y >= 0.20) & (y <= 0.45)
    return crown | brim


def _cup(x: np.ndarray, y: np.ndarray) -> Mask:
    body = (np.abs(x + 0.2) <= 0.52 - 0.1 * y) & (np.abs(y) <= 0.62)
    ring = _radius(x - 0.38, y)
    return body | ((ring >= 0.25) & (ring <= 0.48) & (x > 0.25))


def _flower(x: np.ndarray, y: np.ndarray) -> Mask:
    r, angle = _radius(x, y), np.arctan2(x, -y)
    return (r <= 0.68 + 0.30 * np.cos(6 * angle)) & (r >= 0.16)


SHAPES: dict[str, Plane] = {
    "circle": lambda x, y: _radius(x, y) <= 0.88,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 0.72,
    "triangle": _polygon((0.0, -1.0), (0.86, 0.50), (-0.86, 0.50)),
    "star": _star,
    "heart": _heart,
    "ring": lambda x, y: (_radius(x, y) <= 0.95) & (_radius(x, y) >= 0.42),
    "cross": _cross,
    "moon": lambda x, y: (_radius(x + 0.05, y) <= 0.95) & (_radius(x - 0.50, y) >= 0.62),
}
# Secondary objects (appendix G): of one colour, worn or held by a subject, or alone in a picture.
OBJECTS: dict[str, Plane] = {"hat": _hat, "cup": _cup, "flower": _flower}
FIGURES: dict[str, Plane] = SHAPES | OBJECTS

# After this turn, in degrees, a shape looks the same; 0 where every turn does.
SYMMETRY = {"circle": 0.0, "ring": 0.0, "square": 90.0, "cross": 90.0, "star": 72.0, "flower": 60.0}

# Where a pattern shows the second colour. "plain" has none. Their parts are about as large as FLUX's tokens.
PATTERNS: dict[str, Plane] = {
    "plain": lambda x, y: np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool),
    "striped": lambda x, y: (y / 0.44 + 0.5 + 0 * x) % 2 < 1,
    "checkered": lambda x, y: x * y > 0,
    "ringed": lambda x, y: _radius(x, y) < 0.62,
    "shaded": lambda x, y: x + 0 * y > 0,
}


@dataclass(frozen=True)
class Identity:
    """Who a subject is: what a prompt never says.

    second: the pattern's colour; None for a plain subject and for secondary objects.
    """

    shape: str
    colour: str
    pattern: str = "plain"
    second: str | None = None

    def __post_init__(self) -> None:
        if (self.pattern == "plain") != (self.second is None) or self.second == self.colour:
            raise ValueError(f"A plain subject has one colour, a patterned one two; got {self}.")


@dataclass(frozen=True)
class Pose:
    """Where and how a subject stands.

    x, y: its middle, from 0 to 1 of the picture's side. size: diameter of the circle around it, as a part of
    the side. angle: clockwise turn in degrees.
    """

    x: float
    y: float
    size: float
    angle: float = 0.0


def own_frame(pose: Pose, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of the picture (0 to 1) in the subject's frame."""
    turn = np.deg2rad(pose.angle)
    dx, dy = (x - pose.x) * (2 / pose.size), (y - pose.y) * (2 / pose.size)
    return np.cos(turn) * dx + np.sin(turn) * dy, -np.sin(turn) * dx + np.cos(turn) * dy
