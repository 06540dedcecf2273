"""Random weights that depend on nothing but a seed and the name of the tensor."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

# The first pattern found in a tensor's name sets its gain; later ones are not looked at.
Gains = tuple[tuple[str, float], ...]


def seeded(make: Callable[[], Module], seed: int, gains: Gains = ()) -> Module:
    """Make a module, float32, in eval mode, and give it weights drawn name by name.

    Constructors draw from the global random numbers before their values are replaced; the caller's stay as
    they were.
    """
    with torch.random.fork_rng(devices=[]):
        module = make()
    fill(module, seed, gains)
    return module.float().eval().requires_grad_(False)


@torch.no_grad()
def fill(module: nn.Module, seed: int, gains: Gains = ()) -> None:
    """Overwrite every parameter in place with `drawn` weights."""
    for name, parameter in module.named_parameters():
        parameter.copy_(drawn(name, parameter.shape, seed, gains))


def drawn(name: str, shape: tuple[int, ...] | torch.Size, seed: int, gains: Gains = ()) -> torch.Tensor:
    """The weights of a name, float32.

    Matrices and convolutions get a standard deviation of gain / sqrt(fan in), so that signals keep their size
    through any depth; scales of norms lie around gain, biases around 0, both by a twentieth.
    """
    gain = next((gain for pattern, gain in gains if re.search(pattern, name)), 1.0)
    noise = normal(name, shape, seed)
    if len(shape) > 1:
        return noise * gain / math.sqrt(math.prod(shape[1:]))
    if name.endswith("bias"):
        return noise * gain / 20
    return (1 + noise / 20) * gain


def normal(name: str, shape: tuple[int, ...] | torch.Size, seed: int) -> torch.Tensor:
    """Standard normal numbers, float32 on the CPU; every name has its own stream."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(shape, generator=generator)
