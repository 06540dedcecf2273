"""When each reference is heard: its own window of sigmas, within the gate's stages.

A reference is heard while end <= sigma < start, and only in stages in which the gate lets references speak. Where
none is heard, the text side stays on: something must speak. Equal neighbours are one part, because a host keeps
what every part sees in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from .errors import SqueezeError
from .gate import MAX_TAU, Gate, Stage

ALWAYS = (MAX_TAU, 0.0)


@dataclass(frozen=True)
class Part:
    """The sigmas low <= sigma < high, float32 values, in which the same things are heard.

    text: whether the text side is. references: which are, by their place in the list.
    """

    low: float
    high: float
    text: bool
    references: tuple[int, ...]

    @property
    def last(self) -> float:
        """The largest float32 inside, for hosts whose ranges include both ends."""
        if math.isinf(self.high):
            return self.high
        return float(torch.nextafter(torch.tensor(self.high), torch.tensor(-math.inf)))

    def __contains__(self, sigma: float) -> bool:
        return self.low <= _float32(sigma) < self.high


def check_window(start: float, end: float) -> None:
    """Raises `SqueezeError` unless a reference with this window is heard at some sigma."""
    for name, value in (("start", start), ("end", end)):
        if not 0 <= value <= MAX_TAU:  # also false for NaN
            raise SqueezeError(f"{name} is {value:g}; it is a sigma in 0 to {MAX_TAU} (1 is pure noise).")
    if start <= end:
        raise SqueezeError(
            f"start ({start:g}) is not above end ({end:g}), so this reference would never be heard. Sigmas fall: "
            "it is heard below start, down to end."
        )


def parts(gate: Gate | None, windows: Sequence[tuple[float, float]]) -> list[Part]:
    """What is heard when, from noise to picture; together they hold every sigma once.

    gate: None where there is none, and both sides speak all the time. windows: (start, end) of each reference;
    (1.1, 0) is always.
    """
    spans = [(_first(end), _last(start)) for start, end in windows]
    cuts = {edge for span in spans for edge in span}
    if gate is not None:
        cuts |= {_float32(gate.tau_1), _float32(gate.tau_2)}
    edges = [-math.inf, *sorted(cut for cut in cuts if math.isfinite(cut)), math.inf]
    found: list[Part] = []
    for low, high in reversed(list(pairwise(edges))):
        stage = Stage.MIDDLE if gate is None else gate.stage(low)
        heard = tuple(n for n, (first, last) in enumerate(spans) if stage.vae and first <= low < last)
        part = Part(low, high, stage.mllm or not heard, heard)
        if found and (found[-1].text, found[-1].references) == (part.text, part.references):
            part = Part(low, found.pop().high, part.text, part.references)
        found.append(part)
    return found


def part_of(found: Sequence[Part], sigma: float) -> Part:
    """The part that a sigma falls in. Raises `SqueezeError` for NaN."""
    for part in found:
        if sigma in part:
            return part
    raise SqueezeError("sigma is NaN: nothing is heard there. Check the sigmas of the sampler.")


def _first(end: float) -> float:
    return -math.inf if end <= 0 else _float32(end)


def _last(start: float) -> float:
    return math.inf if start >= MAX_TAU else _float32(start)


def _float32(value: float) -> float:
    return torch.tensor(float(value), dtype=torch.float32).item()
