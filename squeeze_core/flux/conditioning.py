"""What one prediction of FLUX hears."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..attention.rules import AttentionRules
from ..references import Placement

POOLED_WIDTH = 768


@dataclass(frozen=True)
class Conditioning:
    """What one prediction hears.

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
