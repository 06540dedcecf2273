"""diffusers' FLUX processor once more, its own arithmetic, for what it cannot do by itself.

Samples of a batch at positions of their own (`batching.py`), and attention by groups, for the rules of references
and layouts. The groups are an argument of every block, so that what a backward pass computes again sees the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch.nn.functional import scaled_dot_product_attention

from ..attention.groups import Group, grouped_attention, groups
from ..attention.rules import AttentionRules
from .tokens import DOWNSCALE, PATCH

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

Size = tuple[int, int]  # rows and columns of tokens


def ruled(
    rules: AttentionRules | None, words: int, target: Size, references: Sequence[Size], like: torch.Tensor
) -> dict[str, Any]:
    """What blocks with our processor are given for attention under rules; nothing where there are none.

    words: tokens of the context. like: of the device and dtype that attention computes in.
    """
    if rules is None or rules.plain:
        return {}
    seen = rules.visibility(words, target, [rows * columns for rows, columns in references], PATCH * DOWNSCALE)
    return {"parts": tuple(part.to(like.device, like.dtype) for part in groups(seen))}


@contextmanager
def processed(transformer: FluxTransformer2DModel) -> Iterator[None]:
    """Inside, blocks have our processor; afterwards those that they had."""
    before = transformer.attn_processors
    transformer.set_attn_processor(SamplewiseProcessor())
    try:
        yield
    finally:
        transformer.set_attn_processor(before)


class SamplewiseProcessor:
    """`FluxAttnProcessor` of diffusers, whose rotary tables may be one a sample: [batch, tokens, width] each.

    parts: groups of who sees whom, given by a call; none: everybody everybody.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        parts: tuple[Group, ...] = (),
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (_heads(x, attn.head_dim) for x in _projected(attn, hidden_states, "to_qkv", "to_q to_k to_v"))
        q, k = attn.norm_q(q), attn.norm_k(k)
        words = 0
        if encoder_hidden_states is not None:
            words = encoder_hidden_states.shape[1]
            added = _projected(attn, encoder_hidden_states, "to_added_qkv", "add_q_proj add_k_proj add_v_proj")
            word_q, word_k, word_v = (_heads(x, attn.head_dim) for x in added)
            q = torch.cat([attn.norm_added_q(word_q), q], 1)
            k = torch.cat([attn.norm_added_k(word_k), k], 1)
            v = torch.cat([word_v, v], 1)
        if image_rotary_emb is not None:
            q, k = (_turned(x, image_rotary_emb) for x in (q, k))
        q, k, v = (rearrange(x, "b l h d -> b h l d") for x in (q, k, v))
        result = _attended(q, k, v, attention_mask, parts)
        result = rearrange(result, "b h l d -> b l (h d)").to(q.dtype)
        if encoder_hidden_states is None:
            return result
        picture = attn.to_out[1](attn.to_out[0](result[:, words:].contiguous()))
        return picture, attn.to_add_out(result[:, :words].contiguous())


def _attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, parts: tuple[Group, ...]
) -> torch.Tensor:
    if not parts:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, -torch.inf)
    return grouped_attention(q, k, v, parts, mask=mask)


def _turned(x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotary positions of x, [batch, tokens, heads, width]. tables: cosine and sine, [(batch,) tokens, width]."""
    cos, sin = (table.unsqueeze(-2) for table in tables)
    real, imaginary = rearrange(x, "b l h (d two) -> two b l h d", two=2)
    rotated = rearrange(torch.stack([-imaginary, real]), "two b l h d -> b l h (d two)")
    return (x.float() * cos + rotated.float() * sin).to(x.dtype)


def _projected(attn: Any, x: torch.Tensor, fused: str, apart: str) -> tuple[torch.Tensor, ...]:
    if attn.fused_projections:
        return getattr(attn, fused)(x).chunk(3, dim=-1)
    return tuple(getattr(attn, name)(x) for name in apart.split())


def _heads(x: torch.Tensor, width: int) -> torch.Tensor:
    return rearrange(x, "b l (h d) -> b l h d", d=width)
