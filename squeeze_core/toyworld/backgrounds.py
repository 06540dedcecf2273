"""The toy world's backgrounds: pale or dull, so that every subject's colour stands out from all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Paint = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, y from 0 to 1 -> RGB


def _flat(colour: tuple[float, float, float]) -> Paint:
    return lambda x, y: np.broadcast_to(np.array(colour), (*np.broadcast_shapes(x.shape, y.shape), 3))


def _where(mask: np.ndarray, a: tuple[float, float, float], b: tuple[float, float, float]) -> np.ndarray:
    return np.where(mask[..., None], np.array(a), np.array(b))


def _beach(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sky, sea, sand = (0.74, 0.85, 0.90), (0.45, 0.66, 0.76), (0.84, 0.77, 0.62)
    lower = _where((y > 0.52 + 0.02 * np.sin(9 * x)), sand, sea)
    return np.where((y < 0.36)[..., None] & np.ones_like(x, bool)[..., None], np.array(sky), lower)


def _grass(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    hill = 0.42 + 0.06 * np.sin(5 * x + 0.6)
    return _where(y > hill, (0.58, 0.70, 0.42), (0.76, 0.84, 0.88))


def _table(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _where((x + 0 * y) * 4 % 1 < 0.06, (0.42, 0.31, 0.22), (0.66, 0.52, 0.39))


def _bricks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    row = np.floor(y * 6)
    mortar = (y * 6 % 1 < 0.12) | ((x * 3 + 0.5 * (row % 2)) % 1 < 0.06)
    return _where(mortar, (0.72, 0.68, 0.64), (0.58, 0.38, 0.34))


def _night(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    across, down = x * 5 + 0.37 * np.floor(y * 5), y * 5
    star = np.hypot(across % 1 - 0.5, down % 1 - 0.5) < 0.10
    return _where(star, (0.62, 0.62, 0.50), (0.24, 0.26, 0.40))


def _sunset(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    top, bottom = np.array((0.52, 0.42, 0.56)), np.array((0.93, 0.74, 0.60))
    return top + (bottom - top) * (y + 0 * x)[..., None]


def _snow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    drift = 0.60 + 0.07 * np.sin(4 * x + 3.4)
    return _where(y > drift, (0.80, 0.84, 0.88), (0.60, 0.66, 0.74))


BACKGROUNDS: dict[str, Paint] = {
    "on a beach": _beach,
    "in a field of grass": _grass,
    "on a wooden table": _table,
    "on a brick wall": _bricks,
    "under a night sky": _night,
    "at sunset": _sunset,
    "in the snow": _snow,
    "on a grey background": _flat((0.55, 0.55, 0.55)),
}


@lru_cache(maxsize=64)
def painted(name: str, side: int, samples: int = 3) -> np.ndarray:
    """[side, side, 3] float32, anti-aliased by samples x samples points a pixel. Do not write into it."""
    points = (np.arange(side * samples) + 0.5) / (side * samples)
    fine = BACKGROUNDS[name](points[None, :], points[:, None])
    fine = np.broadcast_to(fine, (side * samples, side * samples, 3))
    picture = fine.reshape(side, samples, side, samples, 3).mean((1, 3)).astype(np.float32)
    picture.setflags(write=False)
    return picture
