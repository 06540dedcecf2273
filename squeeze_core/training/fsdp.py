"""FSDP2: weights, gradients and optimizer state spread over the processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn


def shard(
    model: nn.Module, units: Sequence[nn.Module], device: torch.device, precision: Literal["fp32", "bf16"]
) -> None:
    """Shard a module in place, its `units` each on its own, over all processes.

    Weights that are trained stay float32 in the shards; with "bf16" they are gathered as bfloat16 and their
    gradients summed in float32. Called by the loop and not by accelerate, which on a CPU would quietly use
    DDP instead.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = (
        MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        if precision == "bf16"
        else MixedPrecisionPolicy()
    )
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
