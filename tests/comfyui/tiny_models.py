"""Tiny random models of core's own classes, one of each architecture that reads reference pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

WIDTH = 64  # of a text token, where the model leaves it open
TOKENS = 5
HEAD = {"attention_head_dim": 128, "num_attention_heads": 1, "num_layers": 1}
SMALL = {"hidden_size": 120, "num_layers": 1, "num_refiner_layers": 1, "num_attention_heads": 1}


@dataclass(frozen=True)
class Kind:
    """A model and what it is given.

    settings: its class in `comfy.supported_models`. target, references: shapes without the batch.
    """

    settings: str
    config: dict[str, Any]
    target: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    width: int = WIDTH
    method: str | None = None
    mask: bool = False


IMAGE = (16, 8, 6)
VIDEO = (16, 1, 8, 6)
PAIR = ((16, 4, 6), (16, 6, 4))
ODD = ((16, 1, 5, 6), (16, 1, 6, 7))

KINDS = {
    "flux": Kind(
        "Flux",
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": WIDTH,
            "hidden_size": 128,
            "mlp_ratio": 4.0,
            "num_heads": 1,
            "depth": 1,
            "depth_single_blocks": 1,
            "axes_dim": [16, 56, 56],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "guidance_embed": True,
            "txt_ids_dims": [],
        },
        IMAGE,
        ((16, 4, 6), (16, 5, 4)),
    ),
    "flux2": Kind(
        "Flux2",
        {
            "image_model": "flux2",
            "in_channels": 128,
            "out_channels": 128,
            "vec_in_dim": None,
            "context_in_dim": WIDTH,
            "hidden_size": 128,
            "mlp_ratio": 3.0,
            "num_heads": 1,
            "depth": 1,
            "depth_single_blocks": 1,
            "axes_dim": [32, 32, 32, 32],
            "theta": 2000,
            "patch_size": 1,
            "qkv_bias": False,
            "guidance_embed": True,
            "txt_ids_dims": [3],
            "global_modulation": True,
            "mlp_silu_act": True,
            "ops_bias": False,
            "default_ref_method": "index",
            "ref_index_scale": 10.0,
        },
        (128, 4, 3),
        ((128, 2, 3), (128, 3, 3)),
    ),
    "qwen": Kind(
        "QwenImage",
        {"image_model": "qwen_image", "joint_attention_dim": WIDTH, "in_channels": 64, **HEAD},
        VIDEO,
        ODD,
    ),
    "krea2": Kind(
        "Krea2",
        {
            "image_model": "krea2",
            "features": 128,
            "tdim": 64,
            "txtdim": 32,
            "heads": 1,
            "kvheads": 1,
            "multiplier": 2,
            "layers": 1,
            "txtlayers": 12,
            "txtheads": 1,
            "txtkvheads": 1,
        },
        VIDEO,
        ODD,
        width=12 * 32,
        method="index",
    ),
    "joy": Kind(
        "JoyImage",
        {
            "image_model": "joyimage",
            "hidden_size": 128,
            "num_attention_heads": 1,
            "num_layers": 1,
            "text_dim": WIDTH,
            "theta": 10000,
            "rope_dim_list": [16, 56, 56],
        },
        VIDEO,
        ((16, 1, 4, 6), (16, 1, 6, 4)),
    ),
    "omnigen2": Kind(
        "Omnigen2",
        {
            "image_model": "omnigen2",
            "text_feat_dim": WIDTH,
            "num_kv_heads": 1,
            "axes_dim_rope": (40, 40, 40),
            **SMALL,
        },
        IMAGE,
        PAIR,
        mask=True,
    ),
    "boogu": Kind(
        "Boogu",
        {
            "image_model": "boogu",
            "instruction_feat_dim": WIDTH,
            "num_kv_heads": 1,
            "num_double_stream_layers": 1,
            **SMALL,
            "num_layers": 2,
        },
        IMAGE,
        PAIR,
        mask=True,
    ),
    "mage": Kind(
        "MageFlow",
        {"image_model": "mage_flow", "joint_attention_dim": WIDTH, **HEAD},
        (128, 4, 3),
        ((128, 2, 3), (128, 3, 3)),
    ),
    "zimage": Kind(
        "Lumina2",
        {
            "image_model": "lumina2",
            "in_channels": 16,
            "dim": 256,
            "n_layers": 1,
            "n_refiner_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 2,
            "qk_norm": True,
            "cap_feat_dim": WIDTH,
            "axes_dims": [32, 48, 48],
            "axes_lens": [1536, 512, 512],
            "rope_theta": 256.0,
            "z_image_modulation": True,
            "time_scale": 1000.0,
            "pad_tokens_multiple": 32,
            "siglip_feat_dim": 48,
        },
        IMAGE,
        PAIR,
    ),
    "hidream": Kind(
        "HiDreamO1",
        {
            "image_model": "hidream_o1",
            "text_config_overrides": {
                "vocab_size": 151936,
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
            },
            "vision_config_overrides": {
                "hidden_size": 32,
                "num_heads": 1,
                "intermediate_size": 32,
                "depth": 1,
                "deepstack_visual_indexes": (),
            },
        },
        (3, 64, 64),
        (),
    ),
}


def tiny(kind: Kind, seed: int = 0):
    """A patcher of a random model of this kind, on the CPU in float32."""
    import comfy.model_patcher
    import comfy.supported_models

    settings = getattr(comfy.supported_models, kind.settings)(dict(kind.config))
    settings.unet_config.update(getattr(settings, "unet_extra_config", None) or {})
    settings.set_inference_dtype(torch.float32, None)
    device = torch.device("cpu")
    model = settings.get_model({}, "", device=device)
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in model.diffusion_model.named_parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.02
        values = torch.randn(parameter.shape, generator=draw) * scale
        parameter.data = values + 1 if "norm" in name and parameter.ndim == 1 else values
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(model.eval(), load_device=device, offload_device=device)
