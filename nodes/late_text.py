"""What stands in the text's place in late steps: nothing, zeros, or the encoding of the empty prompt.

Models keep text in more places than an entry's tokens; all of them give way together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.flux.conditioning import late_context
from ..squeeze_core.gate import Late

# What an entry says about its tokens and has no meaning for one zero token.
TOKEN_OPTIONS = (
    "attention_mask",
    "attention_mask_img_shape",
    "t5xxl_ids",
    "t5xxl_weights",
    "conditioning_llama3",
    "cross_attn_controlnet",
)
MASK, POOLED = "attention_mask", "pooled_output"
IDS = "text_input_ids"  # HiDream-O1: its words, between a chat template's first and last tokens
IDS_BEFORE, IDS_AFTER = 3, 7
AROUND = "reference_latents_text_embeds"  # Z-Image omni: text around each of the references
NULL = "squeeze_null"  # marks an entry whose text is that of the empty prompt
TEXT_OPTIONS = (*TOKEN_OPTIONS, POOLED, IDS, AROUND)


@dataclass(frozen=True)
class NullText:
    """The encoding of the empty prompt. tokens: [1 or batch, tokens, width]; options: what belongs to them."""

    tokens: torch.Tensor
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, conditioning: Sequence[list] | None) -> NullText | None:
        """From a CONDITIONING of one entry, None from None. Raises `SqueezeError` for any other."""
        if conditioning is None:
            return None
        if len(conditioning) != 1:
            raise SqueezeError(
                f"null has {len(conditioning)} entries. Give the encoding of the empty prompt, which is one."
            )
        tokens, options = conditioning[0]
        _check(tokens, "null", "Encode the empty prompt with the text encoder of the prompt.")
        return cls(tokens, {name: options[name] for name in TEXT_OPTIONS if name in options})


def late_text(
    late: Late, tokens: torch.Tensor, options: dict[str, Any], null: NullText | None = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Tokens and options of an entry in late steps. null: stands in the text's place, whatever `late` says.

    tokens: [batch, tokens, width]. Raises `SqueezeError` for tokens of another shape or a null of another width.
    """
    if null is not None:
        _check(tokens, "null", "Leave null unconnected, and set late to keep.")
        if tokens.shape[-1] != null.tokens.shape[-1]:
            raise SqueezeError(
                f"null is {null.tokens.shape[-1]} wide and the conditioning {tokens.shape[-1]}. Encode the empty "
                "prompt with the same text encoder."
            )
        rest = {name: value for name, value in options.items() if name not in TEXT_OPTIONS}
        return null.tokens, {**rest, **null.options, NULL: True}
    if late == "keep":
        return tokens, options
    _check(tokens, f'late = "{late}"', "Set late to keep.")
    options = dict(options)
    if late == "drop":
        mask = options.get(MASK)
        beside = isinstance(mask, torch.Tensor) and mask.ndim == 2 and "attention_mask_img_shape" not in options
        for name in TOKEN_OPTIONS:
            options.pop(name, None)
        if beside:  # OmniGen2 and Boogu count their tokens by it
            options[MASK] = torch.ones_like(mask[:, :1])
        options.pop(AROUND, None)
    elif AROUND in options:
        options[AROUND] = [torch.zeros_like(text) for text in options[AROUND]]
    if IDS in options:
        ids = options[IDS]
        options[IDS] = torch.cat([ids[..., :IDS_BEFORE], ids[..., -IDS_AFTER:]], dim=-1)
    pooled = options.get(POOLED)
    left, vector = late_context(late, tokens, tokens.new_zeros(0) if pooled is None else pooled)
    if pooled is not None:
        options[POOLED] = vector
    return left, options


def _check(tokens: Any, what: str, do: str) -> None:
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != 3:
        shape = list(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise SqueezeError(f"{what} needs conditioning of [batch, tokens, width]; got {shape}. {do}")
