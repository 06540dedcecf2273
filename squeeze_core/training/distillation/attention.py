"""X2I's loss (arXiv 2503.06134): attention gives the picture's tokens what it gives them under the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


@contextmanager
def heard_by_pictures(transformer: FluxTransformer2DModel, tokens: int) -> Iterator[list[torch.Tensor]]:
    """What attention gives the last `tokens` of the sequence, [batch, tokens, width] of each block, in order.

    Only of the first call inside, not of what the backward pass computes again.
    """
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    given: list[torch.Tensor] = []

    def hear(module: Any, inputs: Any, made: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> None:
        if len(given) < len(blocks):
            given.append((made[0] if isinstance(made, tuple) else made)[:, -tokens:])

    hooks = [block.attn.register_forward_hook(hear) for block in blocks]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()


def divergence(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """[batch]: KL(teacher || student) of softmaxed, layer-normalised outputs, mean over tokens and blocks."""
    return torch.stack([_divergence(one, other) for one, other in zip(student, teacher)]).mean(0)


def _divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    ours, theirs = (F.log_softmax(F.layer_norm(x.float(), x.shape[-1:]), -1) for x in (student, teacher))
    return (theirs.exp() * (theirs - ours)).sum(-1).mean(1)
