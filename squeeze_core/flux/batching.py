"""Samples that differ in text, in references and in their sizes, in one call of FLUX.

diffusers' FLUX has one set of positions for a whole batch. Here each sample has its own: contexts and references
are padded at their ends, attention sees no padding, and rotary tables are one a sample. What a sample gets is what
it gets alone, but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from .attention import SamplewiseProcessor, ruled
from .conditioning import Conditioning
from .model import guidance_of
from .tokens import PATCH, positions, to_latents, to_tokens

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

ALIGN = 8  # attention's kernels read a mask in eights


def prepare(transformer: FluxTransformer2DModel) -> None:
    """Once, before `velocities`: its processors, which also compute what was computed before."""
    transformer.set_attn_processor(SamplewiseProcessor())


def velocities(
    transformer: FluxTransformer2DModel,
    latents: torch.Tensor,
    sigma: torch.Tensor,
    heard: Sequence[Conditioning],
    *,
    multiple: int = ALIGN,
) -> torch.Tensor:
    """What FLUX predicts, noise - picture: float32, of the latents' shape. The transformer is `prepare`d.

    latents: [batch, channels, h, w]. sigma: [batch]. heard: one for each sample, of batch 1; one with attention
    rules comes alone. multiple: what context and references together are padded to, in tokens.
    """
    dtype, here = transformer.dtype, latents.device
    picture = to_tokens(latents)
    target = (latents.shape[-2] // PATCH, latents.shape[-1] // PATCH)
    references = [[to_tokens(each)[0] for each in one.references] for one in heard]
    sizes = [[(each.shape[-2] // PATCH, each.shape[-1] // PATCH) for each in one.references] for one in heard]
    seen = [torch.cat([tokens, *more]) for tokens, more in zip(picture, references)]
    words = [one.context.shape[1] for one in heard]
    tokens = max(map(len, seen))
    attention = ruled(heard[0].rules, words[0], target, sizes[0], latents.to(dtype))
    assert not attention or len(heard) == 1
    # Rules are of the tokens that there are: nothing is padded.
    longest = words[0] if attention else padded_length(max(words), tokens, picture.shape[1], multiple)
    ids = [
        torch.cat([torch.zeros(longest, 3), _grown(positions(target, size, one.placement), tokens)])
        for one, size in zip(heard, sizes)
    ]
    present = torch.zeros(len(heard), longest + tokens, dtype=torch.bool)
    for row, count, pictures in zip(present, words, seen):
        row[:count] = True
        row[longest : longest + len(pictures)] = True
    if not bool(present.all()):
        attention = {"attention_mask": present[:, None, None].to(here, non_blocking=True)}
    with _tables(transformer, torch.stack(ids).to(here)):
        predicted = transformer(
            hidden_states=torch.stack([_grown(each, tokens) for each in seen]).to(dtype),
            encoder_hidden_states=torch.stack([_grown(one.context[0], longest) for one in heard]).to(here, dtype),
            pooled_projections=torch.cat([one.pooled for one in heard]).to(here, dtype),
            timestep=sigma.to(here, torch.float32),
            img_ids=torch.zeros(tokens, 3, device=here),
            txt_ids=torch.zeros(longest, 3, device=here),
            guidance=guidance_of(transformer, [one.guidance for one in heard], here),
            joint_attention_kwargs=attention or None,
            return_dict=False,
        )[0]
    return to_latents(predicted[:, : picture.shape[1]], target[0]).float()


def padded_length(words: int, tokens: int, picture: int, multiple: int) -> int:
    """Context tokens of a call, so that context and references fill whole multiples.

    words: the longest context. tokens: of pictures, references included; picture: the target's own. The whole
    length is never 64 modulo 128, where attention with a mask has given NaN gradients (PyTorch 196678).
    """
    extra = words + tokens - picture
    longest = words + -extra % multiple
    return longest + (ALIGN if (longest + tokens) % 128 == 64 else 0)


def few_calls(lengths: Sequence[int], most: int = 2, worth: float = 0.1) -> list[list[int]]:
    """Which samples share a call: one call, or two where a second saves that share of the tokens.

    lengths: tokens of each sample. Returns indices; all samples, each once.
    """
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    whole = len(order) * lengths[order[-1]]
    cuts = [
        (cut * lengths[order[cut - 1]] + (len(order) - cut) * lengths[order[-1]], cut)
        for cut in range(1, len(order))
    ]
    cost, cut = min(cuts, default=(whole, 0))
    if most < 2 or cost > (1 - worth) * whole:
        return [sorted(order)]
    return [sorted(order[:cut]), sorted(order[cut:])]


def _grown(tokens: torch.Tensor, length: int) -> torch.Tensor:
    """[tokens, width] -> [length, width], zeros at the end."""
    return F.pad(tokens, (0, 0, 0, length - len(tokens)))


class _Tables(nn.Module):
    """In place of FLUX's `pos_embed`: what it would say of each sample's own ids."""

    def __init__(self, tables: tuple[torch.Tensor, torch.Tensor]) -> None:
        super().__init__()
        self.tables = tables

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tables


@contextmanager
def _tables(transformer: FluxTransformer2DModel, ids: torch.Tensor) -> Iterator[None]:
    """ids: [batch, tokens, 3]. Blocks that are computed again in the backward pass have the tables as arguments."""
    own = transformer.pos_embed
    batch, tokens = ids.shape[:2]
    cos, sin = (table.view(batch, tokens, -1) for table in own(ids.flatten(0, 1)))
    transformer.pos_embed = _Tables((cos, sin))
    try:
        yield
    finally:
        transformer.pos_embed = own
