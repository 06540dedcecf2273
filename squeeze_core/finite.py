"""Numbers that are none, refused where they leave a model: otherwise they become a black picture without a word."""

from __future__ import annotations

import torch

from .errors import SqueezeError

MLLM_ADVICE = (
    "In fp16 the activations of InternVL and Qwen overflow: load it with weight_dtype bf16. If it is in bf16, "
    "fetch the folder again"
)
DLA_ADVICE = "Get the adapter's file again, or take an earlier checkpoint"
VAE_ADVICE = "Use another VAE file, or run it in bf16 or fp32"
FLUX_ADVICE = "Give the LoRA less strength, 1 is what was trained; if it is 1, run FLUX in bf16"


def check_finite(numbers: torch.Tensor, what: str, advice: str) -> torch.Tensor:
    """The same tensor. One pass over it, and one wait for the device.

    what: the model and what it gave, as "The VAE gave latents". advice: what to do, without a full stop.
    Raises `SqueezeError` for NaN or infinite numbers.
    """
    if not torch.isfinite(numbers).all():
        raise SqueezeError(f"{what} with NaN or infinite numbers. {advice}.")
    return numbers
