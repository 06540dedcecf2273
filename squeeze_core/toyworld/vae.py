"""A tiny FLUX VAE: 16 latent channels, a side eight times smaller, no quantisation convolutions."""

from __future__ import annotations

from typing import Any

import torch

from .seeding import Gains, drawn
from .shapes import vae_shapes

CHANNELS = (32, 32, 32, 64)
LAYERS = 1
CONFIG: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": CHANNELS,
    "layers_per_block": LAYERS,
    "latent_channels": 16,
    "norm_num_groups": 32,
    "sample_size": 256,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "force_upcast": True,
}
# What is trained has four channels a group, as the real VAE's narrowest layers have: 32 groups of a channel
# each would take every feature's mean away, and with it the colours.
TRAINED_CONFIG: dict[str, Any] = {**CONFIG, "norm_num_groups": 8}

_GAINS: Gains = (
    (r"encoder\.conv_out", 3.5),  # latents of the size that the scaling factor expects
    (r"decoder\.conv_out", 0.7),  # pictures that use most of -1 to 1
)


def state(seed: int) -> dict[str, torch.Tensor]:
    """Untrained weights in diffusers' names, float32, on the CPU. Touches no global random numbers."""
    return {name: drawn(name, shape, seed, _GAINS) for name, shape in vae_shapes(CONFIG).items()}
