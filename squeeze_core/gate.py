"""The timestep gate: which conditioning speaks at a noise level (section 3.4, equation 5).

    M_MLLM(t), M_VAE(t) = (1, 0)   t >= tau_1            early: layout and meaning
                          (1, 1)   tau_2 <= t < tau_1    middle
                          (0, 1)   t < tau_2             late: detail

This is the only place that knows equation 5. Times are sigmas of rectified flow: 1 is noise, 0 the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal, get_args

import torch

from .errors import SqueezeError

Late = Literal["drop", "zero", "keep"]

# Sigma 1.0 is the first step of every schedule, and equation 5 has t >= tau: with tau = 1 that step still
# hears the MLLM. Above 1: tau_1, references from the first step on; tau_2, no text in any step.
MAX_TAU = 1.1


class Stage(Enum):
    """One row of equation 5: (M_MLLM, M_VAE)."""

    EARLY = (True, False)
    MIDDLE = (True, True)
    LATE = (False, True)

    @property
    def mllm(self) -> bool:
        return self.value[0]

    @property
    def vae(self) -> bool:
        return self.value[1]


@dataclass(frozen=True)
class SigmaRange:
    """The sigmas low <= sigma < high of one stage; both ends are float32 values.

    first, last: the smallest and the largest float32 inside, for hosts whose ranges include both ends.
    """

    stage: Stage
    low: float
    high: float

    @property
    def empty(self) -> bool:
        return self.low >= self.high

    @property
    def first(self) -> float:
        return self.low

    @property
    def last(self) -> float:
        if math.isinf(self.high):
            return self.high
        return float(torch.nextafter(torch.tensor(self.high), torch.tensor(-math.inf)))

    def __contains__(self, sigma: float) -> bool:
        return not self.empty and self.first <= _float32(sigma) <= self.last


@dataclass(frozen=True)
class Gate:
    """The two thresholds and what becomes of the MLLM's context in the late stage.

    tau_1, tau_2: 0 to 1.1, tau_1 >= tau_2. (0, 0) is MLLM only; (1.1, 1.1) is VAE only.
    late: "drop" leaves one zero token and a zero pooled vector (FLUX cannot run with none), "zero" leaves
        zeros of the same length (equation 4 to the letter), "keep" leaves the context as it is, for models
        that were never trained without text.
    """

    tau_1: float = 0.95
    tau_2: float = 0.85
    late: Late = "drop"

    def __post_init__(self) -> None:
        for name, tau in (("tau_1", self.tau_1), ("tau_2", self.tau_2)):
            if not 0 <= tau <= MAX_TAU:  # also false for NaN
                raise SqueezeError(
                    f"{name} is {tau}; it must lie in 0 to {MAX_TAU} (1 is pure noise; no sigma is above)."
                )
        if self.tau_1 < self.tau_2:
            raise SqueezeError(
                f"tau_1 ({self.tau_1}) is below tau_2 ({self.tau_2}). The MLLM speaks first: "
                "set tau_1 >= tau_2, or swap them."
            )
        if self.late not in get_args(Late):
            raise SqueezeError(f'late is "{self.late}"; choose one of {", ".join(get_args(Late))}.')

    def stage(self, sigma: float) -> Stage:
        """The stage of a sigma, compared as float32, the precision in which samplers keep sigmas."""
        sigma = _float32(sigma)
        if math.isnan(sigma):
            raise SqueezeError("sigma is NaN: there is no stage for it. Check the sigmas of the sampler.")
        if sigma >= _float32(self.tau_1):
            return Stage.EARLY
        if sigma >= _float32(self.tau_2):
            return Stage.MIDDLE
        return Stage.LATE

    def intervals(self) -> tuple[SigmaRange, SigmaRange, SigmaRange]:
        """Early, middle and late; together they hold every float32 sigma exactly once. Some may be empty."""
        tau_1, tau_2 = _float32(self.tau_1), _float32(self.tau_2)
        return (
            SigmaRange(Stage.EARLY, tau_1, math.inf),
            SigmaRange(Stage.MIDDLE, tau_2, tau_1),
            SigmaRange(Stage.LATE, -math.inf, tau_2),
        )


def _float32(value: float) -> float:
    return torch.tensor(float(value), dtype=torch.float32).item()
