"""What tokens of a picture are asked, while a model learns: who the lone subject is, and where it stands.

Linear readouts answer. They are dropped afterwards; what they ask for stays in the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .. import scenes
from ..backgrounds import BACKGROUNDS
from ..figures import COLOURS, PATTERNS, SHAPES

IGNORED = -100
# Questions and their answers; a plain subject has no second colour.
WHO: dict[str, tuple[str | None, ...]] = {
    "shape": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "pattern": tuple(PATTERNS),
    "second": (None, *COLOURS),
}
WHERE: dict[str, tuple[str | None, ...]] = {"background": tuple(BACKGROUNDS)}


def answers(scene: scenes.Scene) -> list[int]:
    """Numbers of the answers to `WHO`, then `WHERE`; `IGNORED` each for a scene of several subjects."""
    if len(scene.subjects) != 1 or scene.subjects[0].identity.shape not in SHAPES:
        return [IGNORED] * len(WHO | WHERE)
    shown = {**vars(scene.subjects[0].identity), "background": scene.background}
    return [choices.index(shown[name]) for name, choices in (WHO | WHERE).items()]


def misread(guesses: Sequence[torch.Tensor], truth: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the pictures that are asked of; 0 where none is.

    guesses: [pictures, answers] of each question. truth: [pictures, questions], as `answers` gives them.
    """
    asked = (truth[:, 0] != IGNORED).sum().clamp(min=1)
    losses = [
        F.cross_entropy(guess.float(), truth[:, i], ignore_index=IGNORED, reduction="sum") / asked
        for i, guess in enumerate(guesses)
    ]
    return torch.stack(losses).mean()
