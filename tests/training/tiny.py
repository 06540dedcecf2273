"""The smallest models of the real architectures, a few pictures, and configs for them, for training in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FLUX: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 128,
    "num_attention_heads": 1,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}


def write_models(folder: Path) -> Path:
    """folder/flux, folder/vae, folder/mllm: untrained, the same each time."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    from squeeze_core.toyworld import mllm, vae
    from squeeze_core.toyworld.seeding import fill

    flux = FluxTransformer2DModel(**FLUX)
    fill(flux, 0)
    flux.save_pretrained(folder / "flux")
    autoencoder = AutoencoderKL(**vae.CONFIG)
    fill(autoencoder, 0)
    autoencoder.save_pretrained(folder / "vae")
    mllm.write(folder / "mllm", 0)
    return folder


def write_uno(folder: Path, pairs: int = 6, sizes: tuple[tuple[int, int], ...] = ((64, 64),)) -> Path:
    """UNO-1M's layout with pictures of noise; (height, width) of the targets in turn."""
    split = folder / "images" / "split1"
    split.mkdir(parents=True)
    rows = []
    for number in range(pairs):
        for part in (1, 2):
            size = sizes[number % len(sizes)] if part == 2 else (64, 64)
            pixels = np.random.default_rng(number * 2 + part).integers(0, 255, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(split / f"{number}_{part}.png")
        rows.append(row(number))
    (folder / "uno_1m_total_labels.json").write_text(json.dumps(rows))
    return folder


def row(number: int, score: float = 4.0) -> dict:
    """A row of UNO-1M's labels; prompts differ in length."""
    return {
        "img_path1": f"split1/{number}_1.png",
        "img_path2": f"split1/{number}_2.png",
        "caption": {
            "img_path1": "a toy",
            "img_path2": "the toy on the beach" + " at night" * (number % 3),
            "judgment": "same",
            "subject": ["toy"],
        },
        "vlm_filter_cot": {"score_part": {"Shape": score}, "score_final": score},
    }


def config_values(models: Path, uno: Path, **changes: Any) -> dict[str, Any]:
    """A run of stage 2 that takes a second or two."""
    return {
        "models": {
            "flux": str(models / "flux"),
            "vae": str(models / "vae"),
            "mllm": str(models / "mllm"),
            "dtype": "fp32",
            "mllm_dtype": "fp32",
        },
        "data": [{"kind": "uno", "folder": str(uno)}],
        "vae_references": True,
        "steps": 4,
        "batch_size": 4,
        "save_every": 2,
        "learning_rate": 1e-3,
        "lora": {"rank": 4},
        "dla": {"lap": {"heads": 3}},
        "drops": {"pictures": 0.25, "references": 0.25, "context": 0.2},
        "resolution": 64,
        "reference_long_side": 64,
        "device": "cpu",
        "workers": 0,
        "tensorboard": False,
        **changes,
    }
