"""The LoRA of an adapter: which modules of FLUX it may touch, other forms made ours, putting it in and out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import SqueezeError

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

PREFIX = "transformer."

# Attention of the double blocks (both streams) and of the single blocks: what the paper trains (section 4.1).
DOUBLE_ATTENTION = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
)
SINGLE_ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v")

# Further linear maps, trained by other recipes (UNO): name -> (in, out) in widths.
_DOUBLE_REST = {
    "ff.net.0.proj": (1, 4),
    "ff.net.2": (4, 1),
    "ff_context.net.0.proj": (1, 4),
    "ff_context.net.2": (4, 1),
    "norm1.linear": (1, 6),
    "norm1_context.linear": (1, 6),
}
_SINGLE_REST = {"proj_mlp": (1, 4), "proj_out": (5, 1), "norm.linear": (1, 3)}
_DOUBLE = {**dict.fromkeys(DOUBLE_ATTENTION, (1, 1)), **_DOUBLE_REST}
_SINGLE = {**dict.fromkeys(SINGLE_ATTENTION, (1, 1)), **_SINGLE_REST}

_KEY = re.compile(
    r"transformer\.((?P<single>single_)?transformer_blocks\.(?P<block>\d+)\.(?P<name>.+))\.lora_(?P<part>[AB])\.weight"
)


def attention_modules(double_blocks: int, single_blocks: int) -> list[str]:
    """Diffusers names of the attention maps that the paper's LoRA trains."""
    return [f"transformer_blocks.{i}.{name}" for i in range(double_blocks) for name in DOUBLE_ATTENTION] + [
        f"single_transformer_blocks.{i}.{name}" for i in range(single_blocks) for name in SINGLE_ATTENTION
    ]


def check_lora(
    shapes: Mapping[str, tuple[int, ...]],
    width: int,
    double_blocks: int,
    single_blocks: int,
    rank: int,
    file: str,
) -> None:
    """Raise `SqueezeError` unless every key is an A or a B of a known module, in pairs, of fitting shapes."""
    if bool(shapes) != bool(rank):
        raise SqueezeError(
            f'"{file}" says LoRA rank {rank} and holds {len(shapes)} LoRA tensors. Export the adapter again.'
        )
    for key, shape in shapes.items():
        match = _KEY.fullmatch(key)
        table = _SINGLE if match and match["single"] else _DOUBLE
        blocks = single_blocks if match and match["single"] else double_blocks
        if match is None or match["name"] not in table or int(match["block"]) >= blocks:
            raise SqueezeError(
                f'"{file}" holds {key}, which is no LoRA tensor of a FLUX with {double_blocks} double and '
                f"{single_blocks} single blocks. Export the adapter again."
            )
        width_in, width_out = (factor * width for factor in table[match["name"]])
        expected = (rank, width_in) if match["part"] == "A" else (width_out, rank)
        if tuple(shape) != expected:
            raise SqueezeError(
                f'"{file}" holds {key} of shape {list(shape)}; rank {rank} and width {width} ask for '
                f"{list(expected)}. Export the adapter again."
            )
        other = key.replace(".lora_A.", ".lora_B.") if match["part"] == "A" else key.replace(".lora_B.", ".lora_A.")
        if other not in shapes:
            raise SqueezeError(f'"{file}" holds {key} without {other}. Export the adapter again.')


def baked(state: Mapping[str, torch.Tensor], alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A LoRA in our form: prefix `transformer.`, no `.alpha` keys, alpha / rank multiplied into B.

    state: peft's or diffusers' keys, with or without `base_model.model.`, `transformer.` or an adapter's name
        such as `lora_A.default.weight`. alpha: for all modules; a module's own `.alpha` key goes before it;
        None means alpha = rank, a scale of 1.
    Raises `SqueezeError` for keys of another kind (kohya, BFL).
    """
    alphas, parts = {}, {}
    for key, tensor in state.items():
        name = key.removeprefix("base_model.model.").removeprefix(PREFIX)
        if name.endswith(".alpha"):
            alphas[name.removesuffix(".alpha")] = float(tensor)
            continue
        match = re.fullmatch(r"(?P<module>.+)\.lora_(?P<part>[AB])(\.[^.]+)?\.weight", name)
        if match is None:
            raise SqueezeError(
                f'"{key}" is no LoRA key of peft or diffusers ("<module>.lora_A.weight"). '
                "Convert the LoRA to the diffusers form first."
            )
        parts[match["module"], match["part"]] = tensor
    result = {}
    for (module, part), tensor in parts.items():
        if part == "B":
            rank = tensor.shape[1]
            tensor = tensor * (alphas.get(module, rank if alpha is None else alpha) / rank)
        result[f"{PREFIX}{module}.lora_{part}.weight"] = tensor
    return result


def apply_lora(
    transformer: FluxTransformer2DModel,
    lora: Mapping[str, torch.Tensor],
    strength: float = 1.0,
    fuse: bool = False,
) -> None:
    """Put an adapter's LoRA into FLUX, in place.

    lora: as in `adapter.Adapter`. fuse: add it to the weights, for good, which costs nothing at each step;
    else it stays apart through peft and is named "squeeze", so that other LoRAs can be added and strengths
    changed by diffusers' own functions. Raises `SqueezeError` for a strength that is no number.
    """
    check_strength(strength)
    if not lora or strength == 0:
        return
    if not fuse:
        transformer.load_lora_adapter(dict(lora), prefix="transformer", adapter_name="squeeze")
        transformer.set_adapters("squeeze", strength)
        return
    for key, a in lora.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix("transformer.").removesuffix(".lora_A.weight")
        linear = transformer.get_submodule(name)
        b = lora[key.replace(".lora_A.", ".lora_B.")]
        # A new tensor: the old one may be mapped from a file and must not be written to.
        update = b.to(linear.weight.device, torch.float32) @ a.to(linear.weight.device, torch.float32)
        fused = (linear.weight.float() + strength * update).to(linear.weight.dtype)
        linear.weight = nn.Parameter(fused, requires_grad=False)


def remove_lora(transformer: FluxTransformer2DModel) -> None:
    """Undo `apply_lora` without fuse; nothing happens when there is none."""
    if "squeeze" in getattr(transformer, "peft_config", {}):
        transformer.delete_adapters("squeeze")


def check_strength(strength: float) -> None:
    """Raises `SqueezeError` for a strength of the LoRA that is not finite."""
    if not math.isfinite(strength):
        raise SqueezeError(f"The strength of the LoRA is {strength:g}; give a number, such as 1.")
