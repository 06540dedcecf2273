"""Which token sees which, and how strongly: the rule, and its reference form as a mask.

The sequence is FLUX's: words, then the picture's tokens, then those of each reference. Every token has an owner:
0 is everybody's, s >= 1 is subject s. Owned words and references are for their owner alone:

    who looks               sees words of     picture tokens of    references of
    a picture token of s    0 and s           everybody            0 and s
    a word of s             0 and s           s                    0 and s
    a reference of s        0 and s           s                    s
    a word, reference of 0  0                 everybody            0

so that a single owner of everything is no layout at all, and no key of one subject reaches another's region.
On top of that a reference has a strength, which multiplies the odds of attending to it, and a region, outside of
which picture tokens do not see it. `bias` is the reference to test against; hosts compute by `groups.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

WORD, PICTURE, REFERENCE = 0, 1, 2


@dataclass(frozen=True)
class ReferenceSpan:
    """One reference's tokens.

    tokens: how many. owner: 0 for everybody's. strength: above 0. region: [picture tokens] in 0 to 1, how much of
    each sees it; None for all.
    """

    tokens: int
    owner: int = 0
    strength: float = 1.0
    region: torch.Tensor | None = None

    @property
    def plain(self) -> bool:
        return self.strength == 1 and (self.region is None or bool((self.region == 1).all()))


@dataclass(frozen=True)
class Visibility:
    """Owners of the words [T] and of the picture's tokens [P], long, on the CPU, and the references."""

    words: torch.Tensor
    picture: torch.Tensor
    references: tuple[ReferenceSpan, ...] = ()

    @property
    def tokens(self) -> int:
        return len(self.words) + len(self.picture) + sum(span.tokens for span in self.references)

    @property
    def plain(self) -> bool:
        """Everybody sees everybody, once."""
        owners = {*self.words.tolist(), *self.picture.tolist(), *(span.owner for span in self.references)}
        return len(owners) < 2 and all(span.plain for span in self.references)


def bias(seen: Visibility) -> torch.Tensor:
    """[tokens, tokens] float32, added to attention's scores: rows look, columns are seen. -inf: not seen."""
    owner = torch.cat([seen.words, seen.picture, *_spread(seen, [span.owner for span in seen.references])])
    kind = torch.full((len(owner),), REFERENCE)
    kind[: len(seen.words) + len(seen.picture)] = PICTURE
    kind[: len(seen.words)] = WORD
    asks, asked = owner[:, None], owner[None]
    looks, looked_at = kind[:, None], kind[None]
    own, shared = asks == asked, asked == 0
    words = (looked_at == WORD) & (own | shared)
    picture = (looked_at == PICTURE) & ((looks == PICTURE) | own | (asks == 0))
    references = (looked_at == REFERENCE) & (own | (shared & (looks != REFERENCE)))
    scores = torch.where(words | picture | references, 0.0, -math.inf)
    start = len(seen.words) + len(seen.picture)
    for span in seen.references:
        columns = scores[:, start : start + span.tokens]
        columns += log(span.strength)
        if span.region is not None:
            columns[len(seen.words) : len(seen.words) + len(seen.picture)] += span.region.float().log()[:, None]
        start += span.tokens
    return scores


def log(strength: float) -> float:
    return math.log(strength) if strength > 0 else -math.inf


def _spread(seen: Visibility, values: list[int]) -> list[torch.Tensor]:
    return [torch.full((span.tokens,), value) for span, value in zip(seen.references, values)]
