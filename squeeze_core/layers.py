"""Which layers of an MLLM take part: "all", "none", or ranges such as "0-9,20-28" (Tables A and B).

Layer 0 is the embedding; a model of 28 transformer layers has the layers 0 to 28, as the paper counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from .errors import SqueezeError

_RANGE = re.compile(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?")


@dataclass(frozen=True)
class LayerSelection:
    """A set of layers, kept as ranges until the number of layers is known.

    ranges: inclusive pairs, sorted, neither overlapping nor touching; None stands for all layers.
    """

    ranges: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def parse(cls, text: str) -> LayerSelection:
        """Read "all", "none", "7", "0-9,20-28". Raises `SqueezeError` naming the part that does not read."""
        word = text.strip().lower()
        if word == "all":
            return cls(None)
        if word == "none":
            return cls(())
        pairs = []
        for part in text.split(","):
            match = _RANGE.fullmatch(part)
            if match is None:
                raise SqueezeError(
                    f'Cannot read "{part.strip()}" in the layers "{text}". '
                    'Write "all", "none", or ranges such as "0-9,20-28".'
                )
            first, last = int(match[1]), int(match[2] or match[1])
            if first > last:
                raise SqueezeError(f'The range "{part.strip()}" runs backwards; write "{last}-{first}".')
            pairs.append((first, last))
        return cls(_merged(pairs))

    def indices(self, layers: int) -> list[int]:
        """The chosen layers in order, out of 0 .. layers - 1.

        layers: how many states there are, the embedding included.
        Raises `SqueezeError` with the valid range when a chosen layer does not exist.
        """
        if self.ranges is None:
            return list(range(layers))
        if self.ranges and self.ranges[-1][1] >= layers:
            raise SqueezeError(
                f"Layer {self.ranges[-1][1]} does not exist: this model has the layers 0-{layers - 1} "
                f'(0 is the embedding). Choose within "0-{layers - 1}".'
            )
        return [layer for first, last in self.ranges for layer in range(first, last + 1)]

    def mask(self, layers: int, device: torch.device | str | None = None) -> torch.Tensor:
        """[layers] bool, true at the chosen layers."""
        mask = torch.zeros(layers, dtype=torch.bool)
        mask[self.indices(layers)] = True
        return mask.to(device)

    def __str__(self) -> str:
        if self.ranges is None:
            return "all"
        if not self.ranges:
            return "none"
        return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.ranges)


def _merged(pairs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
