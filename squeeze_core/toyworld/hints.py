"""What the toy world does not know of what it is asked: a sentence each, before it paints all the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import grammar

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 128
_FLAT = 0.75  # of neighbouring pixels are nearly alike: 0.91 and more in toys, 0.62 and less in photographs
_ALIKE = 2  # of 255
_GRAMMAR = (
    grammar.SIZES,
    grammar.COLOURS,
    grammar.PATTERNS,
    grammar.SHAPES,
    grammar.PLACES,
    grammar.BACKGROUNDS,
    grammar.RELATIONS,
    grammar.STYLES,
    grammar.NUMBERS,
)
# Of sentences, and what a plan's captions say.
_ALSO = "a an the toy toys picture pictures of and in on at with to it is one other first second third fourth photo"


def hints(prompt: str, references: Sequence[Image], size: tuple[int, int]) -> list[str]:
    """size: height and width of the new picture."""
    found = []
    if not references:
        found.append("No reference: the toy is whatever the prompt's words make of it. Give --reference.")
    for number, picture in enumerate(references, start=1):
        if not looks_drawn(picture):
            found.append(
                f"Reference {number} looks like a photograph; these tiny models know drawn toys only, such as "
                "those that squeeze demo writes. Expect little."
            )
    if size != (SIDE, SIDE):
        found.append(f"The toy world has learned {SIDE} x {SIDE} px; {size[1]} x {size[0]} will look worse.")
    unknown = unknown_words(prompt)
    if unknown:
        found.append(f"Never heard by the toy world: {', '.join(unknown)}. It knows {known()}.")
    return found


def unknown_words(prompt: str) -> list[str]:
    """Words that no caption of its training had, in their order."""
    words = {word for group in _GRAMMAR for phrase in group for word in re.findall(r"[a-z-]+", phrase)}
    words |= set(_ALSO.split())
    return [word for word in dict.fromkeys(re.findall(r"[a-z-]+", prompt.lower())) if word not in words]


def known() -> str:
    """The words for people, by what they say."""
    said = (
        ("sizes", grammar.SIZES),
        ("places", grammar.PLACES),
        ("backgrounds", grammar.BACKGROUNDS),
        ("styles", grammar.STYLES),
        ("shapes", grammar.SHAPES),
        ("colours", grammar.COLOURS),
        ("patterns", grammar.PATTERNS),
    )
    return "; ".join(f"{name}: {', '.join(words)}" for name, words in said)


def looks_drawn(picture: Image) -> bool:
    """Whether most neighbours are nearly of one colour, as in a drawing, and hardly ever in a photograph."""
    import numpy as np

    pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE)), dtype=np.int16)
    steps = np.abs(np.diff(pixels, axis=1)).max(-1)
    return float((steps <= _ALIKE).mean()) > _FLAT
