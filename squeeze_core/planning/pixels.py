"""Boxes in pixels, as ComfyUI's nodes draw and find them: {"x", "y", "width", "height"}, also with "metadata"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SqueezeError
from .grid import Box

_SIDES = ("x", "y", "width", "height")


def from_pixels(boxes: Any, width: int, height: int) -> list[Box]:
    """One dictionary, a list of them, or a list of such lists of which the first counts -> boxes in order.

    width, height: of the picture in pixels. Raises `SqueezeError` for a box that is none, has no area or leaves the
    picture.
    """
    if min(width, height) < 1:
        raise SqueezeError(f"The picture of the boxes is {width} x {height} px; give at least 1 x 1.")
    return [_box(number, box, width, height) for number, box in enumerate(_frame(boxes), start=1)]


def to_pixels(
    boxes: Mapping[int, Box], width: int, height: int, names: Mapping[int, str], colours: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Boxes as they are ordered; names and colours are what ComfyUI's canvas shows."""
    drawn = []
    for number, box in boxes.items():
        left, right = round(box.left * width), round(box.right * width)
        top, bottom = round(box.top * height), round(box.bottom * height)
        drawn.append(
            {
                "x": left,
                "y": top,
                "width": max(1, right - left),
                "height": max(1, bottom - top),
                "metadata": {"type": "obj", "text": "", "desc": names[number], "palette": [colours[number]]},
            }
        )
    return drawn


def _frame(boxes: Any) -> Sequence[Any]:
    if isinstance(boxes, Mapping):
        return [boxes]
    if isinstance(boxes, list | tuple):
        return boxes[0] if boxes and isinstance(boxes[0], list | tuple) else boxes
    raise SqueezeError(
        f"The boxes are a {type(boxes).__name__}; give a list with x, y, width and height in pixels."
    )


def _box(number: int, box: Any, width: int, height: int) -> Box:
    sides: list[Any] = [box.get(side) for side in _SIDES] if isinstance(box, Mapping) else []
    if len(sides) != 4 or not all(isinstance(side, int | float) and not isinstance(side, bool) for side in sides):
        raise SqueezeError(f"Box {number} is {str(box)[:80]}; it needs x, y, width and height in pixels.")
    x, y, wide, high = sides
    given = f"Box {number} (x {x:g}, y {y:g}, {wide:g} x {high:g} px)"
    if not wide > 0 or not high > 0:
        raise SqueezeError(f"{given} has no area. Give it a width and a height above 0.")
    if not (x >= 0 and y >= 0 and x + wide <= width and y + high <= height):
        raise SqueezeError(f"{given} leaves the picture of {width} x {height} px. Move or shrink it.")
    return Box(x / width, y / height, wide / width, high / height)
