"""What a run must remember: trained weights, optimizer, average of the weights; whole, whoever holds the parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import SqueezeError
from .checkpoint import Tensors, read_tensors

WEIGHTS, OPTIMIZER, AVERAGE = "weights", "optimizer", "ema"


class TrainedState:
    """The trainable parameters of a module, their AdamW state and, if asked for, their moving average.

    Shards of FSDP2 are gathered when saved and cut again when restored, so that a checkpoint does not tell
    how many processes made it.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, ema: float | None) -> None:
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimizer = optimizer
        self.decay = ema
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if ema else {}

    @torch.no_grad()
    def update_average(self) -> None:
        """After each step: average = decay * average + (1 - decay) * weights."""
        if self.decay is not None:
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter.detach(), 1 - self.decay)

    def gathered(self, keep: bool = True) -> dict[str, dict[str, torch.Tensor]]:
        """Everything, on the CPU, for `Checkpoints.write`. Every process has to call it.

        keep: false in the processes that do not write: they only give their shards, and get nothing.
        """
        moments = {
            f"{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state[parameter].items()
        }
        groups = {WEIGHTS: self.parameters, OPTIMIZER: moments, AVERAGE: self.average}
        whole: dict[str, dict[str, torch.Tensor]] = {group: {} for group in groups}
        for group, tensors in groups.items():
            for name, tensor in tensors.items():
                full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                if keep:
                    whole[group][name] = full.detach().cpu()
        return whole

    @torch.no_grad()
    def restore(self, checkpoint: Path) -> None:
        """Bit for bit what `gathered` gave. Raises `SqueezeError` for a checkpoint of other parameters."""
        weights = read_tensors(checkpoint, WEIGHTS)
        moments = read_tensors(checkpoint, OPTIMIZER)
        copy_weights(self.parameters, weights, f'The checkpoint "{checkpoint}"')
        fused = bool(self.optimizer.defaults.get("fused"))  # it counts its steps where the weights are
        for name, parameter in self.parameters.items():
            state = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{name}.{key}" not in moments:
                    raise SqueezeError(f'The checkpoint "{checkpoint}" lacks {key} of {name}. Delete its folder.')
                value = moments[f"{name}.{key}"]
                if key == "step":
                    state[key] = value.to(parameter.device) if fused else value
                else:
                    state[key] = _like(parameter, value)
            self.optimizer.state[parameter] = state
        if self.average:
            copy_weights(self.average, read_tensors(checkpoint, AVERAGE), f'The average in "{checkpoint}"')

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The average in place of the weights, for making pictures; nothing without an average."""
        kept = {name: self.parameters[name].detach().clone() for name in self.average}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)


@torch.no_grad()
def copy_weights(into: Mapping[str, torch.Tensor], weights: Tensors, source: str) -> None:
    """Copy weights by name. Raises `SqueezeError` unless names and shapes agree. source: for the message."""
    for problem, names in (("lacks", into.keys() - weights.keys()), ("also has", weights.keys() - into.keys())):
        if names:
            raise SqueezeError(f"{source} {problem} {sorted(names)[0]}. It belongs to another model or config.")
    for name, tensor in into.items():
        if tensor.shape != weights[name].shape:
            raise SqueezeError(
                f"{source} holds {name} of shape {list(weights[name].shape)}; this model has {list(tensor.shape)}. "
                "It belongs to another model or config."
            )
        tensor.copy_(_like(tensor, weights[name]))


def _like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    value = value.to(tensor.device)
    if isinstance(tensor, DTensor):
        return distribute_tensor(value, tensor.device_mesh, tensor.placements)
    return value
