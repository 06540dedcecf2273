"""diffusers' first-block cache under the gate: steps whose first block changes little skip the others.

The cache keeps what the other blocks added, and that fits the next step only while the same is heard: after a
change of stage there are other tokens. So each part of the way has a memory of its own, and its first step is
always computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from ..errors import SqueezeError

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


def check_threshold(threshold: float) -> None:
    """Raises `SqueezeError` unless this is a threshold; 0 stands for no cache."""
    if not (math.isfinite(threshold) and threshold >= 0):
        raise SqueezeError(f"cache is {threshold:g}; give 0 for none, or a threshold such as 0.05 to 0.2.")


@contextmanager
def step_cache(transformer: FluxTransformer2DModel, threshold: float = 0.0) -> Iterator[None]:
    """Inside is one sampling, with the cache if threshold is above 0, or with one that was enabled before.

    threshold: how much the first block's output may change, as a share of it, for the others to be skipped.
    Raises `SqueezeError` when there are two caches.
    """
    own = threshold > 0
    if own:
        from diffusers import FirstBlockCacheConfig

        if transformer.is_cache_enabled:
            raise SqueezeError("The transformer has a cache enabled already. Disable it, or set cache to 0.")
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    try:
        yield
    finally:
        if transformer.is_cache_enabled:
            transformer._reset_stateful_cache()  # as diffusers' own pipelines do after a run
        if own:
            transformer.disable_cache()


def remembering(transformer: FluxTransformer2DModel, what: str) -> AbstractContextManager[None]:
    """Inside is one call of the transformer; a cache compares it with calls of the same name only."""
    return transformer.cache_context(what) if transformer.is_cache_enabled else nullcontext()
