"""A tiny FLUX VAE: 16 latent channels, a side eight times smaller, no quantisation convolutions."""

from __future__ import annotations

from collections.abc import Mapping
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
# each would take every feature's mean away, and with it the colours. Hosts: see `fit_comfy_vae`.
TRAINED_CONFIG: dict[str, Any] = {**CONFIG, "norm_num_groups": 8}

_GAINS: Gains = (
    (r"encoder\.conv_out", 3.5),  # latents of the size that the scaling factor expects
    (r"decoder\.conv_out", 0.7),  # pictures that use most of -1 to 1
)


def state(seed: int) -> dict[str, torch.Tensor]:
    """Untrained weights in diffusers' names, float32, on the CPU. Touches no global random numbers."""
    return {name: drawn(name, shape, seed, _GAINS) for name, shape in vae_shapes(CONFIG).items()}


def comfy_vae_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The VAE's diffusers state dict, with the identity convolutions that `comfy_vae_config` brings along."""
    names = {"quant_conv": 2 * CONFIG["latent_channels"], "post_quant_conv": CONFIG["latent_channels"]}
    identity = {f"{name}.weight": torch.eye(width)[:, :, None, None] for name, width in names.items()}
    zero = {f"{name}.bias": torch.zeros(width) for name, width in names.items()}
    return {**state, **identity, **zero}


def comfy_vae_config() -> dict[str, Any]:
    """For `comfy.sd.VAE(sd=comfy_vae_state(...), config=...)`: its detection takes every VAE to be 128 wide.

    Such a VAE calls itself four channels deep: set its `latent_channels` to 16 afterwards.
    """
    return {
        "params": {
            "embed_dim": 16,
            "ddconfig": {
                "double_z": True,
                "z_channels": 16,
                "resolution": 256,
                "in_channels": 3,
                "out_ch": 3,
                "ch": CHANNELS[0],
                "ch_mult": [channels // CHANNELS[0] for channels in CHANNELS],
                "num_res_blocks": LAYERS,
                "attn_resolutions": [],
                "dropout": 0.0,
            },
        }
    }


def fit_comfy_vae(model: torch.nn.Module, config: Mapping[str, Any]) -> None:
    """Give ComfyUI's VAE module, which always has 32 groups, those of a toy VAE's config.json."""
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = config["norm_num_groups"]
