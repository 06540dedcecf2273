"""Linear layers whose weights are stored in fewer bits than they compute in."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class CastLinear(nn.Linear):
    """`nn.Linear` that casts its weights to the input's dtype as they are used.

    Only the class differs: parameters and their names are those of `nn.Linear`, so a host with casting
    layers of its own can set another class on the same module.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return functional.linear(input, self.weight.to(input.dtype), bias)


def cast_as_used(module: nn.Linear) -> None:
    """Turn a plain linear layer into a `CastLinear`, in place."""
    module.__class__ = CastLinear
