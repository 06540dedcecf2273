"""How a trained toy FLUX is kept: without weights that say the same to every picture.

It has met one guidance and one pooled vector, zeros: what their embeddings say goes into biases. Its modulations
hear nothing but the time then, a curve in 256 dimensions that hardly leaves `RANK` of them: each of their matrices
is kept as its part in these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from .flux import CONFIG
from .shapes import flux_shapes

RANK = 48
SILENT = tuple(
    f"time_text_embed.{name}.linear_{layer}.weight"
    for name in ("guidance_embedder", "text_embedder")
    for layer in (1, 2)
)
_MODULATION = re.compile(r"norm(1|1_context|_out)?\.linear\.weight$")
_BASIS = "basis_of_times"
_TIMES = 1001


def folded(state: Mapping[str, torch.Tensor], guidance: float) -> dict[str, torch.Tensor]:
    """The same FLUX in a quarter less room; at other guidances and pooled vectors another one.

    state: in diffusers' names, trained with this guidance and pooled vectors of zeros. The sum of the two biases is
    that of the two embeddings, also when each is rounded to bf16. Give the result to `unfolded`.
    """
    weights = {name: tensor.float() for name, tensor in state.items()}
    said = _embedded(weights, "guidance_embedder", _waves(torch.tensor([1000.0 * guidance])))[0]
    pooled = torch.zeros(1, CONFIG["pooled_projection_dim"])
    said = said + _embedded(weights, "text_embedder", pooled)[0]
    most = said.bfloat16().float()
    times = _waves(torch.linspace(0, 1000, _TIMES))
    heard = F.silu(_embedded(weights, "timestep_embedder", times) + said)
    basis = torch.linalg.svd(heard.double(), full_matrices=False).Vh[:RANK].float()
    rest = {
        name: tensor @ basis.T if _MODULATION.search(name) else tensor
        for name, tensor in weights.items()
        if name not in SILENT
    }
    rest["time_text_embed.guidance_embedder.linear_2.bias"] = most
    rest["time_text_embed.text_embedder.linear_2.bias"] = said - most
    return {**rest, _BASIS: basis}


def unfolded(kept: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict in diffusers' names and shapes, float32, of what `folded` gave, or of a whole one."""
    state = {name: tensor.float() for name, tensor in kept.items() if name != _BASIS}
    if _BASIS in kept:
        basis = kept[_BASIS].float()
        for name, tensor in state.items():
            if _MODULATION.search(name):
                state[name] = tensor @ basis
    shapes = flux_shapes(CONFIG)
    return {**{name: torch.zeros(shapes[name]) for name in SILENT}, **state}


def _embedded(weights: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    for layer in ("linear_1", "linear_2"):
        weight, bias = (weights[f"time_text_embed.{name}.{layer}.{kind}"] for kind in ("weight", "bias"))
        x = F.linear(F.silu(x) if layer == "linear_2" else x, weight, bias)
    return x


def _waves(times: torch.Tensor) -> torch.Tensor:
    from diffusers.models.embeddings import get_timestep_embedding

    return get_timestep_embedding(times, 256, True, 0)
