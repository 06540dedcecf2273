"""Noise levels of the sampling steps: the paper's cosine schedule, and FLUX's own.

The paper says "a cosine denoising schedule" (section 4.1) without a formula, so both readings are here.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch

from .errors import SqueezeError

Curve = Literal["cosine", "raised_cosine", "flux", "linear"]
CURVES: tuple[Curve, ...] = get_args(Curve)


def sigmas(curve: Curve, steps: int, *, denoise: float = 1.0, mu: float = 1.15) -> torch.Tensor:
    """[steps + 1] float32 on the CPU, falling from 1 (or less, see denoise) to exactly 0.

    Strictly falling for up to 2,000 steps; far beyond, the first cosine levels round to 1 in float32.

    curve, with u = i / N: "cosine" cos(pi u / 2); "raised_cosine" (1 + cos(pi u)) / 2; "linear" 1 - u;
        "flux" the linear one shifted by mu (see `shifted`).
    denoise: 0 to 1; below 1 the last `steps` of int(steps / denoise) steps, as ComfyUI's schedulers do.
    mu: log of the shift, only for "flux"; 1.15 suits 1024 x 1024 (`flux_mu`).
    Raises `SqueezeError` for an unknown curve, steps < 1, denoise outside (0, 1].
    """
    if curve not in CURVES:
        raise SqueezeError(f'The curve is "{curve}"; choose one of {", ".join(CURVES)}.')
    if steps < 1:
        raise SqueezeError(f"steps is {steps}; at least 1 step is needed.")
    if not 0 < denoise <= 1:
        raise SqueezeError(f"denoise is {denoise}; it must lie above 0 and at most at 1.")
    total = max(steps, int(steps / denoise))
    u = torch.arange(total + 1, dtype=torch.float64) / total
    if curve == "cosine":
        levels = torch.cos(math.pi / 2 * u)
    elif curve == "raised_cosine":
        levels = (1 + torch.cos(math.pi * u)) / 2
    else:
        levels = 1 - u
        if curve == "flux":
            levels = shifted(levels, mu)
    levels[0], levels[-1] = 1.0, 0.0  # cos(pi / 2) is 6e-17
    return levels[-(steps + 1) :].to(torch.float32)


def shifted(t: torch.Tensor, mu: float) -> torch.Tensor:
    """FLUX's time shift: e^mu / (e^mu + 1/t - 1), elementwise; 0 stays 0 and 1 stays 1."""
    return math.exp(mu) * t / (1 + (math.exp(mu) - 1) * t)


def flux_mu(tokens: int) -> float:
    """FLUX's shift for a picture of so many tokens: linear, 0.5 at 256 tokens and 1.15 at 4,096."""
    return 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)


def at_size(sigma: float, tokens: int, given: int) -> float:
    """The level at which a picture of `tokens` tokens is as uncertain as one of `given` tokens is at `sigma`.

    sigma / (1 - sigma) / sqrt(tokens) is equal in both: the error of the best estimate of what all tokens share
    (Esser et al., "Scaling Rectified Flow Transformers", 2024, equation 23). FLUX's shift is its practical form.
    """
    return float(shifted(torch.tensor(sigma, dtype=torch.float64), math.log(tokens / given) / 2))
