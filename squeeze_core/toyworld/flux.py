"""A tiny FLUX.1: every layer of the real one, two heads wide."""

from __future__ import annotations

from typing import Any

import torch

from .seeding import Gains, drawn
from .shapes import flux_shapes

# Heads of 128 and these axes are what FLUX's host loaders assume; width, depth and context are free.
CONTEXT_WIDTH = 256
CONFIG: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 128,
    "num_attention_heads": 2,
    "joint_attention_dim": CONTEXT_WIDTH,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}

# A real FLUX leaves the embeddings at very different sizes. Here they are balanced so that untrained weights
# answer visibly to text, references, guidance and sigma alike, with a velocity of about the size of noise.
_GAINS: Gains = (
    (r"^x_embedder\.weight", 0.5),
    (r"(guidance|text)_embedder", 0.6),
    (r"norm1?(_context)?\.linear\.bias", 8.0),
    (r"norm.*\.linear\.weight", 0.7),
    (r"attn\.norm_", 1.7),
    (r"attn\.(to_v|add_v_proj|to_out|to_add_out)", 1.6),
)


def state(seed: int) -> dict[str, torch.Tensor]:
    """Untrained weights in diffusers' names, float32, on the CPU. Touches no global random numbers."""
    return {name: drawn(name, shape, seed, _GAINS) for name, shape in flux_shapes(CONFIG).items()}
