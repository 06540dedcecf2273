"""Aspect buckets: a few sizes of about one area, so that pictures train near their own aspect."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from ..references import MULTIPLE

if TYPE_CHECKING:
    from PIL.Image import Image

WIDEST = 2.0  # aspects from 1:2 to 2:1


@lru_cache(maxsize=8)
def buckets(side: int) -> tuple[tuple[int, int], ...]:
    """(height, width) in pixels, multiples of 16, of an area of at most side * side and as near to it as can be."""
    sizes = set()
    for height in range(MULTIPLE, 2 * side + 1, MULTIPLE):
        width = side * side // height // MULTIPLE * MULTIPLE
        if width and max(height / width, width / height) <= WIDEST:
            sizes.add((height, width))
    return tuple(sorted(sizes))


def nearest(height: int, width: int, side: int) -> tuple[int, int]:
    """The bucket whose aspect is nearest, on a log scale."""
    aspect = math.log(height / width)
    return min(buckets(side), key=lambda size: (abs(math.log(size[0] / size[1]) - aspect), size))


def fitted(picture: Image, size: tuple[int, int], crop: tuple[float, float] = (0.5, 0.5)) -> Image:
    """Scaled to cover (height, width), and cropped.

    crop: where the cut-out lies in what is too much, (down, right), 0 to 1; (0.5, 0.5) is the middle.
    """
    from PIL import Image

    height, width = size
    scale = max(height / picture.height, width / picture.width)
    scaled = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    if picture.size != scaled:
        picture = picture.resize(scaled, Image.Resampling.LANCZOS)
    left = round((scaled[0] - width) * crop[1])
    top = round((scaled[1] - height) * crop[0])
    return picture.crop((left, top, left + width, top + height))
