"""Random numbers that depend on nothing but a seed, what they are for, and a sample's global index.

Counter-based (Philox): any sample's draw is made on its own, in any order and by any process, so that workers,
process count and a restart change nothing. Made on the CPU, hence the same on every device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Draws:
    """All random numbers of a run.

    Every method takes the purpose, such as "noise", and the sample's global index. Two purposes have
    independent streams; the same purpose and index give the same numbers each time.
    """

    seed: int

    def generator(self, purpose: str, index: int) -> np.random.Generator:
        """A generator of its own for draws that the methods below do not offer."""
        # The index is the counter's third word, so streams lie 2^128 numbers apart and never overlap.
        return np.random.Generator(np.random.Philox(key=_key(self.seed, purpose), counter=[0, 0, index, 0]))

    def uniform(self, purpose: str, index: int) -> float:
        """In [0, 1)."""
        return float(self.generator(purpose, index).random())

    def chance(self, purpose: str, index: int, probability: float) -> bool:
        """True with the given probability; never at 0, always at 1."""
        return self.uniform(purpose, index) < probability

    def integer(self, purpose: str, index: int, below: int) -> int:
        """In 0 .. below - 1."""
        return int(self.generator(purpose, index).integers(below))

    def gaussian(self, purpose: str, index: int) -> float:
        """Standard normal."""
        return float(self.generator(purpose, index).standard_normal())

    def spread(self, purpose: str, index: int) -> float:
        """In [0, 1), uniform, and of neighbouring indices evenly apart: a batch covers the range like a grid.

        The golden ratio's multiples from a random start; less noise in a mean over the batch than `uniform`.
        """
        return (self.uniform(purpose, 0) + index * _GOLDEN) % 1.0

    def normal(self, purpose: str, index: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal numbers of a shape, float32 on the CPU."""
        return torch.from_numpy(self.generator(purpose, index).standard_normal(shape, dtype=np.float32))

    def shuffled(self, purpose: str, index: int, length: int) -> int:
        """The item that an endless, shuffled walk over `length` items meets at its `index`-th step.

        Every pass over the items has an order of its own, and meets each item once.
        """
        turn, place = divmod(index, length)
        return int(_order(self.seed, purpose, turn, length)[place])


@lru_cache(maxsize=256)
def _key(seed: int, purpose: str) -> np.ndarray:
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return np.frombuffer(digest[:16], dtype="<u8").copy()


@lru_cache(maxsize=16)
def _order(seed: int, purpose: str, turn: int, length: int) -> np.ndarray:
    return Draws(seed).generator(f"{purpose}/order", turn).permutation(length)
