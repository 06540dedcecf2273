"""A part of work that several processes share, each of which finds what is not done by itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .errors import SqueezeError

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise SqueezeError(f'The shard is "{self.index}/{self.count}"; give 1/N to N/N, such as 2/4.')

    def part(self, whole: Sequence[Piece]) -> list[Piece]:
        """Every count-th piece, so that shards take equally long whatever the order."""
        return list(whole[self.index - 1 :: self.count])


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """ "2/4", or nothing: then the process's place under accelerate or torchrun, or all. Raises `SqueezeError`."""
    if not text:
        found = os.environ if environment is None else environment
        return Shard(int(found.get("RANK", "0")) + 1, int(found.get("WORLD_SIZE", "1")))
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text)
    if match is None:
        raise SqueezeError(f'The shard is "{text}"; give it as i/n, such as 2/4.')
    return Shard(int(match[1]), int(match[2]))
