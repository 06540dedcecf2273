"""What is asked of attention, before the picture's size is known: what both hosts carry beside the conditioning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import SqueezeError
from .regions import Region, owners
from .visibility import ReferenceSpan, Visibility

MAX_SUBJECTS = 12
MAX_STRENGTH = 100.0


@dataclass(frozen=True)
class ReferenceRule:
    """How one reference is heard: by whom, how strongly, and where."""

    owner: int = 0
    strength: float = 1.0
    region: Region | None = None

    def __post_init__(self) -> None:
        check_strength(self.strength)


@dataclass(frozen=True)
class AttentionRules:
    """Who sees whom, for one conditioning.

    words: the owners of its tokens as (owner, tokens) in order; empty: all are everybody's. places: where each
    subject is, the nearest last. references: one for each, in order.
    """

    references: tuple[ReferenceRule, ...] = ()
    words: tuple[tuple[int, int], ...] = ()
    places: tuple[tuple[int, Region], ...] = ()

    @property
    def plain(self) -> bool:
        """Attention as it is without any rule."""
        return not self.places and all(rule == ReferenceRule() for rule in self.references)

    def visibility(
        self,
        words: int,
        picture: tuple[int, int],
        references: Sequence[int],
        pixels: int,
        padded: bool = False,
    ) -> Visibility:
        """For a sequence of that many words, picture tokens (rows, columns) and tokens of each reference.

        pixels: a token's side in the picture. padded: whether the model pads its text on the left, as FLUX.2 does;
        padding is everybody's. Raises `SqueezeError` when they are not what the rules are for.
        """
        if len(references) != len(self.references):
            raise SqueezeError(
                f"The model sees {len(references)} references, and {len(self.references)} are set. Put the gate or "
                "the layout behind everything that adds references, and use a model that takes them."
            )
        rows, columns = picture
        spans = []
        for tokens, rule in zip(references, self.references):
            region = None if rule.region is None else rule.region.on(rows, columns, pixels).flatten()
            spans.append(ReferenceSpan(tokens, rule.owner, rule.strength, region))
        cells = owners(self.places, rows, columns, pixels).flatten()
        return Visibility(self._words(words, padded), cells, tuple(spans))

    def _words(self, present: int, padded: bool) -> torch.Tensor:
        given = sum(tokens for _, tokens in self.words)
        if not self.places or not self.words:
            return torch.zeros(present, dtype=torch.long)
        ahead = max(0, present - given) if padded else 0
        if (present - ahead) % given:
            raise SqueezeError(
                f"The text has {present} tokens and the layout was made for {given}. Put nothing that changes the "
                "text between the layout and the sampler but the gate."
            )
        owner = torch.cat([torch.full((tokens,), subject) for subject, tokens in self.words])
        # ComfyUI repeats texts of unequal lengths that run in one call.
        return torch.cat([owner.new_zeros(ahead), owner.repeat((present - ahead) // given)])


@dataclass(frozen=True)
class Layout:
    """Who owns what in one picture.

    words: the owners of the context's tokens as (owner, tokens) in order. places: where each subject is, the
    nearest last. references: the owner of each. until: sigma down to which the layout holds; 0 for all of the way.
    """

    words: tuple[tuple[int, int], ...]
    places: tuple[tuple[int, Region], ...]
    references: tuple[int, ...] = ()
    until: float = 0.0

    def __post_init__(self) -> None:
        subjects = {subject for subject, _ in self.places}
        if not subjects:
            raise SqueezeError("The layout has no subject with a place. Give at least one a box or a mask.")
        if not 1 <= min(subjects) <= max(subjects) <= MAX_SUBJECTS:
            raise SqueezeError(f"The layout has subject {max(subjects)}; 1 to {MAX_SUBJECTS} are possible.")
        if not 0 <= self.until <= 1:
            raise SqueezeError(f"until is {self.until:g}; it is a sigma in 0 (to the end) to 1 (not at all).")
        for owner in {*self.references, *(owner for owner, _ in self.words)} - {0}:
            if owner not in subjects:
                raise SqueezeError(
                    f"Subject {owner} has words or a reference and no place. Give it a box or a mask."
                )


def check_strength(strength: float) -> None:
    """Raises `SqueezeError` for a strength that is none."""
    if not (math.isfinite(strength) and 0 <= strength <= MAX_STRENGTH):
        raise SqueezeError(
            f"The strength of a reference is {strength:g}; give 0 (unheard) to {MAX_STRENGTH:g}, 1 is as trained."
        )
