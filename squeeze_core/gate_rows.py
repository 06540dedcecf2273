"""What each step of a sampler hears under a gate, and what a user should know of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .gate import Stage


@dataclass(frozen=True)
class GateRow:
    """One entry of a gated conditioning, as a sampler would use it.

    low, high: the sigmas at which it is active, both ends included; infinities are fine.
    context_tokens: length of its context, 0 for the empty prompt. mllm: whether that context says anything (False
        for zeros).
    references: how many reference pictures its tokens come from.
    """

    label: str
    low: float
    high: float
    context_tokens: int
    mllm: bool = True
    references: int = 0

    def active(self, sigma: float) -> bool:
        return self.low <= sigma <= self.high

    @property
    def stage(self) -> Stage | None:
        """What it lets through, as a stage; None for neither (the null context)."""
        seen = (self.mllm, self.references > 0)
        return Stage(seen) if any(seen) else None


def step_stages(sigmas: torch.Tensor, entries: Sequence[GateRow]) -> list[Stage | None]:
    """What each of the steps sees: one stage a step, the union of the entries active at its first sigma."""
    stages = []
    for active in active_rows(sigmas, entries):
        seen = (any(row.mllm for row in active), any(row.references for row in active))
        stages.append(Stage(seen) if any(seen) else None)
    return stages


def gate_warnings(sigmas: torch.Tensor, entries: Sequence[GateRow]) -> list[str]:
    """Sentences about steps that do not see what the user may expect, for `plot_gate`."""
    stages, active = step_stages(sigmas, entries), list(active_rows(sigmas, entries))
    warnings = []
    if any(row.mllm for row in entries) and not any(stage and stage.mllm for stage in stages):
        warnings.append(
            "No step hears the MLLM: the first sigma is below its range. Raise denoise, or lower tau_2."
        )
    if any(row.references for row in entries) and not any(stage and stage.vae for stage in stages):
        warnings.append("No step sees the references: raise tau_1, or use more steps.")
    if silent := [step for step, rows in enumerate(active, start=1) if not rows]:
        warnings.append(f"No entry is active at {_steps(silent)}: the model predicts nothing there.")
    if shared := [step for step, rows in enumerate(active, start=1) if len(rows) > 1]:
        warnings.append(f"Several entries are active at {_steps(shared)}: their predictions are averaged.")
    return warnings


def side_warnings(sigmas: torch.Tensor, positive: Sequence[GateRow], negative: Sequence[GateRow]) -> list[str]:
    """Sentences about steps at which the two sides of CFG see references apart, where both have some."""
    sides = [
        [any(row.references for row in rows) for rows in active_rows(sigmas, side)] for side in (positive, negative)
    ]
    apart = [step for step, (one, other) in enumerate(zip(*sides), start=1) if one != other]
    if not all(map(any, sides)) or not apart:
        return []
    return [f"Only one side sees references at {_steps(apart)}: connect negative to the gate as well."]


def active_rows(sigmas: torch.Tensor, entries: Sequence[GateRow]) -> Iterator[list[GateRow]]:
    """The entries that are active, step by step: at each sigma but the last."""
    for sigma in sigmas[:-1]:
        yield [row for row in entries if row.active(float(sigma))]


def _steps(steps: Sequence[int]) -> str:
    if len(steps) == 1:
        return f"step {steps[0]}"
    if len(steps) <= 4:
        return f"steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"
    return f"{len(steps)} steps ({steps[0]} to {steps[-1]})"
