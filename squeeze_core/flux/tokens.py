"""FLUX's tokens: latents <-> tokens of 2x2 latents, and where each token stands.

Positions are those of ComfyUI's FLUX, reference tokens included (`references.offsets`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange

from ..references import Placement, offsets

PATCH = 2  # latents a side of a token
DOWNSCALE = 8  # pixels a side of a latent


def to_tokens(latents: torch.Tensor) -> torch.Tensor:
    """[batch, channels, h, w] -> [batch, h/2 * w/2, channels * 4]."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)


def to_latents(tokens: torch.Tensor, rows: int) -> torch.Tensor:
    """[batch, rows * columns, channels * 4] -> [batch, channels, rows * 2, columns * 2]."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=PATCH, q=PATCH)


def positions(target: tuple[int, int], references: Sequence[tuple[int, int]], placement: Placement) -> torch.Tensor:
    """[tokens, 3] float32: (index, row, column) of every target token, then of every reference's.

    target, references: (rows, columns) of tokens.
    """
    grids = [_grid(target, (0, 0, 0))]
    grids += [_grid(size, offset) for size, offset in zip(references, offsets(references, target, placement))]
    return torch.cat(grids)


def _grid(size: tuple[int, int], offset: tuple[int, int, int]) -> torch.Tensor:
    index, row, column = offset
    rows = torch.arange(row, row + size[0], dtype=torch.float32)
    columns = torch.arange(column, column + size[1], dtype=torch.float32)
    return torch.cartesian_prod(torch.tensor([float(index)]), rows, columns)
