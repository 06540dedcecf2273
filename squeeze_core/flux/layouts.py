"""FLUX's two key layouts: diffusers' names, and those of the files that Black Forest Labs publish.

Host loaders read the published layout: queries, keys and values are one matrix, a single block's first layer
holds them and the MLP, and the last modulation has shift before scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from ..errors import SqueezeError

# Published name -> the diffusers modules whose rows it stacks, in this order.
_TOP: dict[str, tuple[str, ...]] = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
}
_DOUBLE: dict[str, tuple[str, ...]] = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE: dict[str, tuple[str, ...]] = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}


def to_bfl(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A FLUX.1 state dict of diffusers' `FluxTransformer2DModel` in the published key layout.

    Tensors are copies. Raises `SqueezeError` when keys are missing or left over: another architecture.
    """
    left = dict(state)
    out: dict[str, torch.Tensor] = {}
    for new, olds in _modules(state).items():
        for end in ("weight", "bias"):
            parts = [left.pop(f"{old}.{end}", None) for old in olds]
            if all(part is None for part in parts):
                continue  # norms have no bias; models without guidance have no guidance embedder
            if any(part is None for part in parts):
                raise SqueezeError(
                    f"This FLUX lacks the {end} of one of {', '.join(olds)}: the file is not complete."
                )
            # Norm weights are called scale in the published files.
            key = f"{new}.scale" if new.endswith("_norm") else f"{new}.{end}"
            out[key] = torch.cat([part for part in parts if part is not None])
    for end in ("weight", "bias"):
        scale, shift = out[f"final_layer.adaLN_modulation.1.{end}"].chunk(2)
        out[f"final_layer.adaLN_modulation.1.{end}"] = torch.cat((shift, scale))
    if left:
        raise SqueezeError(f"{len(left)} keys are not FLUX.1's, the first is {min(left)}: another architecture.")
    return out


def from_bfl(state: Mapping[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """The other way: a published state dict, prefix `model.diffusion_model.` or none, in diffusers' names.

    width: of the model, rows of each of q, k, v. Tensors are views of the given ones, but for the last
    modulation. Raises `SqueezeError` when keys are missing or left over: another architecture.
    """
    left = {key.removeprefix("model.diffusion_model."): tensor for key, tensor in state.items()}
    out: dict[str, torch.Tensor] = {}
    for new, olds in _modules(left, published=True).items():
        for end in ("weight", "bias"):
            key = f"{new}.scale" if new.endswith("_norm") else f"{new}.{end}"
            stacked = left.pop(key, None)
            if stacked is None:
                continue
            rows = [width] * (len(olds) - 1)
            rows.append(stacked.shape[0] - sum(rows))
            if rows[-1] <= 0:
                raise SqueezeError(f"{key} has {stacked.shape[0]} rows: too few for a FLUX.1 of width {width}.")
            out |= {f"{old}.{end}": part for old, part in zip(olds, stacked.split(rows))}
    for end in ("weight", "bias"):
        key = f"norm_out.linear.{end}"
        if key not in out:
            raise SqueezeError(f"This file lacks final_layer.adaLN_modulation.1.{end}: it is no whole FLUX.1.")
        shift, scale = out[key].chunk(2)
        out[key] = torch.cat((scale, shift))
    if left:
        raise SqueezeError(f"{len(left)} keys are not FLUX.1's, the first is {min(left)}: another architecture.")
    return out


def _modules(state: Mapping[str, torch.Tensor], published: bool = False) -> dict[str, tuple[str, ...]]:
    """Published module -> diffusers modules, for as many blocks as the keys of either layout show."""
    modules = dict(_TOP)
    for new, old, names in (
        ("double_blocks", "transformer_blocks", _DOUBLE),
        ("single_blocks", "single_transformer_blocks", _SINGLE),
    ):
        matches = (re.match(rf"{new if published else old}\.(\d+)\.", key) for key in state)
        for i in sorted({int(match[1]) for match in matches if match}):
            for name, parts in names.items():
                modules[f"{new}.{i}.{name}"] = tuple(f"{old}.{i}.{part}" for part in parts)
    return modules
