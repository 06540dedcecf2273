"""Noise of a seed, and Euler's steps from it to a picture."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .tokens import DOWNSCALE


def euler(
    predict: Callable[[int, torch.Tensor], torch.Tensor],
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    step_done: Callable[[int], None] = lambda step: None,
) -> torch.Tensor:
    """Follow the velocity from noise to picture: x += (sigma_next - sigma) * v.

    predict: (step, latents) -> velocity. noise: [batch, channels, h, w]. sigmas: [steps + 1], falling.
    """
    latents = noise * sigmas[0]
    for step in range(len(sigmas) - 1):
        latents = latents + predict(step, latents) * (sigmas[step + 1] - sigmas[step])
        step_done(step + 1)
    return latents


def seeded_noise(seed: int, batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    """[batch, channels, height / 8, width / 8] float32 on the CPU: ComfyUI's own noise of that seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((batch, channels, height // DOWNSCALE, width // DOWNSCALE), generator=generator)
