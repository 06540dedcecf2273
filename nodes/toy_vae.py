"""The toy world's VAE as ComfyUI's: its detection takes every VAE to be 128 wide, and to have 32 groups."""

from __future__ import annotations

import json
from pathlib import Path

import comfy.sd
import comfy.utils
import torch

from ..squeeze_core.toyworld import vae as toy


def load(path: Path) -> comfy.sd.VAE:
    """path: of the toy world's diffusers file, with its config.json beside it."""
    channels = toy.CONFIG["latent_channels"]
    state = comfy.utils.load_torch_file(str(path))
    for name, width in (("quant_conv", 2 * channels), ("post_quant_conv", channels)):  # which ComfyUI's has
        state |= {f"{name}.weight": torch.eye(width)[:, :, None, None], f"{name}.bias": torch.zeros(width)}
    config = {
        "double_z": True,
        "z_channels": channels,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": toy.CHANNELS[0],
        "ch_mult": [each // toy.CHANNELS[0] for each in toy.CHANNELS],
        "num_res_blocks": toy.LAYERS,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    made = comfy.sd.VAE(sd=state, config={"params": {"embed_dim": channels, "ddconfig": config}})
    made.latent_channels = channels  # such a VAE calls itself four channels deep
    groups = json.loads((path.parent / "config.json").read_text("utf-8"))["norm_num_groups"]
    for module in made.first_stage_model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.num_groups = groups
    return made
