"""A tiny FLUX.1: every layer of the real one, two heads wide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from .shapes import flux_shapes
from .weights import Gains, drawn

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

# Weights that `folded` makes zero: a trained toy FLUX has met one guidance and one pooled vector, zeros.
FOLDED = tuple(
    f"time_text_embed.{name}.linear_{layer}.weight"
    for name in ("guidance_embedder", "text_embedder")
    for layer in (1, 2)
)

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


def folded(state: Mapping[str, torch.Tensor], guidance: float) -> dict[str, torch.Tensor]:
    """The same FLUX without the weights `FOLDED`: what they always said goes into biases.

    state: in diffusers' names, trained with this guidance and pooled vectors of zeros. The sum of the two biases is
    that of the two embeddings, also when each is rounded to bf16.
    """
    from diffusers.models.embeddings import get_timestep_embedding

    def layer(name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = (state[f"time_text_embed.{name}.{kind}"].float() for kind in ("weight", "bias"))
        return F.linear(x, weight, bias)

    asked = get_timestep_embedding(torch.tensor([1000.0 * guidance]), 256, True, 0)
    said = layer("guidance_embedder.linear_2", F.silu(layer("guidance_embedder.linear_1", asked)))[0]
    pooled = torch.zeros(1, CONFIG["pooled_projection_dim"])
    said = said + layer("text_embedder.linear_2", F.silu(layer("text_embedder.linear_1", pooled)))[0]
    most = said.bfloat16().float()
    rest = {name: tensor for name, tensor in state.items() if name not in FOLDED}
    rest["time_text_embed.guidance_embedder.linear_2.bias"] = most
    rest["time_text_embed.text_embedder.linear_2.bias"] = said - most
    return rest
