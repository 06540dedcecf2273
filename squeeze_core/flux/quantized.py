"""A frozen FLUX's linear layers in 8 or 4 bits, so that a training step fits a small GPU (QLoRA, arXiv 2305.14314).

By bitsandbytes, an optional extra. What is trained beside them, LoRA and aggregator, stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ..errors import SqueezeError

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

Base = Literal["as_is", "int8", "nf4"]


def quantize(transformer: FluxTransformer2DModel, base: Base) -> None:
    """The blocks' linear layers, in place, before a LoRA goes in. They take their few bits when they are moved.

    nf4: half a byte a weight and a scale for each 64. int8: 1 byte (LLM.int8), outliers in 16 bits.
    Embedders and the last layer stay: they are few, and sensitive. Raises `SqueezeError` without bitsandbytes.
    """
    if base == "as_is":
        return
    try:
        import bitsandbytes as bnb
    except ImportError:
        raise SqueezeError(
            f'base "{base}" needs bitsandbytes, which is not there. Install it (pip install bitsandbytes), or '
            'set base to "as_is".'
        ) from None
    for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
        for name, layer in list(block.named_modules()):
            if isinstance(layer, nn.Linear):
                parent, _, last = name.rpartition(".")
                setattr(block.get_submodule(parent), last, _few_bits(bnb, layer, base))
    # What peft asks, to put its own kind of LoRA on such layers.
    setattr(transformer, "is_loaded_in_4bit" if base == "nf4" else "is_loaded_in_8bit", True)


def _few_bits(bnb: Any, layer: nn.Linear, base: Base) -> nn.Module:
    wide, narrow, bias = layer.in_features, layer.out_features, layer.bias is not None
    weight = layer.weight.data
    with torch.device("meta"):
        if base == "nf4":
            dtype = torch.bfloat16 if weight.dtype != torch.float32 else torch.float32
            made = bnb.nn.Linear4bit(wide, narrow, bias, compute_dtype=dtype, quant_type="nf4")
        else:
            made = bnb.nn.Linear8bitLt(wide, narrow, bias, has_fp16_weights=False)
    if base == "nf4":
        made.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=made)
    else:
        made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    if bias:
        made.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    return made
