"""What one prediction of FLUX is conditioned on, and what stands in its place where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..attention.rules import AttentionRules
from ..gate import Late
from ..references import Placement

POOLED_WIDTH = 768


@dataclass(frozen=True)
class Conditioning:
    """What one prediction is conditioned on.

    context: [1 or batch, tokens, width], at least one token. pooled: [1 or batch, 768]. guidance: for FLUX's
        guidance embedding.
    references: scaled latents [1, channels, h, w], h and w even; tokens that are not there cost nothing.
    present: [batch, tokens] bool, which context tokens attention sees, where contexts of several lengths were
        padded into one batch; None for all.
    rules: who sees whom, and how strongly; None: everybody everybody. One rule for each of the references.
    """

    context: torch.Tensor
    pooled: torch.Tensor
    guidance: float
    references: tuple[torch.Tensor, ...] = ()
    placement: Placement = "auto"
    present: torch.Tensor | None = None
    rules: AttentionRules | None = None


def null_context(context: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, width] -> one zero token [batch, 1, width]: FLUX cannot run without any."""
    return torch.zeros_like(context[:, :1])


def null(context: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The null context and its pooled vector, what the model was trained with as "no text" (section 3.5).

    context: [batch, tokens, width] and pooled: [batch, 768], of which shape, dtype and device are taken.
    """
    return null_context(context), torch.zeros_like(pooled)


def late_context(late: Late, context: torch.Tensor, pooled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Context and pooled vector in the gate's late stage; see `Gate` for what `late` means.

    context: [batch, tokens, width]. pooled: [batch, 768].
    """
    match late:
        case "keep":
            return context, pooled
        case "zero":
            return torch.zeros_like(context), torch.zeros_like(pooled)
        case "drop":
            return null(context, pooled)
