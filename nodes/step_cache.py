"""Core's step caches under the gate.

A step cache skips steps whose input has changed little. The gate replaces an entry by its next part at each change
of stage, and that part answers otherwise. So at a change the last input and output are forgotten, but not how fast
outputs follow inputs, and the first step of a part is always computed.

EasyCache compares the input of one entry, its anchor. Without more it would be gone with the first part, and no
step would be skipped ever after: here it goes on to the next part. LazyCache does not know of entries, and would
answer the first step of a part from the part before: here it stops where a part ends, and goes on behind.

Only the caches' own state is touched, and nothing without one.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import torch
from comfy.conds import CONDConstant

KEY = "squeeze_part"
_FORGOTTEN = ("x_prev_subsampled", "output_prev_subsampled", "output_prev_norm", "cumulative_change_rate")


@dataclass(frozen=True)
class PartOf:
    """entry: which gated entry this is a part of. low: the smallest sigma at which it is active."""

    entry: UUID
    low: float


class PartCond(CONDConstant):
    """In the `model_conds` of a part: whose it is, one for each part that runs in one call."""

    def __init__(self, cond: tuple[PartOf, ...]):
        super().__init__(cond)

    def can_concat(self, other: PartCond) -> bool:
        return True

    def concat(self, others: Sequence[PartCond]) -> tuple[PartOf, ...]:
        return sum((other.cond for other in others), self.cond)


@dataclass
class _Seen:
    """What a cache's sampling has seen. parts: of which entry, by core's uuid. now: the part of each entry."""

    end: float | None
    parts: dict[UUID, UUID] = field(default_factory=dict)
    now: dict[UUID, tuple[UUID, float]] = field(default_factory=dict)


# A cache lives as long as one sampling.
_seen: weakref.WeakKeyDictionary[Any, _Seen] = weakref.WeakKeyDictionary()


def follow(transformer_options: dict, parts: Sequence[PartOf]) -> None:
    """Told before each call of the model with parts of gated entries, in the order of `uuids`."""
    cache = transformer_options.get("easycache")
    if cache is None or not parts or not all(hasattr(cache, name) for name in _FORGOTTEN):
        return
    uuids = transformer_options["uuids"]
    seen = _seen.setdefault(cache, _Seen(getattr(cache, "end_t", None)))
    changed = any(seen.now.get(part.entry, (one,))[0] != one for part, one in zip(parts, uuids))
    for part, one in zip(parts, uuids):
        seen.parts[one] = part.entry
        seen.now[part.entry] = (one, part.low)
    if hasattr(cache, "first_cond_uuid"):
        _hand_on(cache, uuids, seen)
    elif seen.end is not None:
        if changed:
            _forget(cache)
        cache.end_t = max(seen.end, *(_below(low) for _, low in seen.now.values()))


def _hand_on(cache: Any, uuids: Sequence[UUID], seen: _Seen) -> None:
    """EasyCache's anchor to the part that has taken its place, if that is in this call."""
    entry = seen.parts.get(cache.first_cond_uuid)
    heir = cache.first_cond_uuid if entry is None else seen.now[entry][0]
    if heir != cache.first_cond_uuid and heir in uuids:
        cache.first_cond_uuid = heir
        _forget(cache)


def _forget(cache: Any) -> None:
    for name in _FORGOTTEN:
        setattr(cache, name, None)
    cache.cumulative_change_rate = 0.0


def _below(sigma: float) -> float:
    """The next float32, as samplers keep sigmas."""
    if math.isinf(sigma):
        return sigma
    return float(torch.nextafter(torch.tensor(sigma, dtype=torch.float32), torch.tensor(-math.inf)))
