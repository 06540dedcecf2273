"""Models that rest on the CPU and visit the GPU while they work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def visiting(module: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Move a frozen module to a device, and afterwards put its own tensors back.

    Nothing is copied on the way home: the weights have not changed, so the tensors of before (mapped from a
    file, perhaps) are simply put in place again, whatever happens in between.
    """
    parameters = [
        (owner, name, parameter, parameter.data)
        for owner in module.modules()
        for name, parameter in owner._parameters.items()
        if parameter is not None
    ]
    buffers = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    try:
        module.to(device)
        yield
    finally:
        for owner, name, parameter, data in parameters:
            parameter.data = data
            owner._parameters[name] = parameter
        for owner, name, buffer in buffers:
            owner._buffers[name] = buffer
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
