"""What can be trained: the one interface between the loop and everything it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from PIL.Image import Image


class Task(ABC):
    """A module, where its samples come from, and their loss.

    module: everything that takes gradients, and what belongs to it. Exactly the parameters that require a
        gradient are trained, saved and averaged; keep them float32, `LoopSettings.precision` casts as they
        are used. Frozen models that need no sharding (an MLLM, a VAE) are better kept outside of it.

    Several processes need each other: every trainable parameter must take part in the loss of every batch,
    if only times zero.
    """

    module: nn.Module
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def batch(self, indices: Sequence[int]) -> Any:
        """The samples of these global indices, on the CPU.

        A pure function of the task's seed and the indices, without gradients and without global random
        numbers: it is called ahead of time, from other threads, and again after a restart.
        Indices count from 0 without end; `Draws.shuffled` walks a data set that way.
        """

    @abstractmethod
    def loss(self, batch: Any) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        """The mean loss over the batch's samples, a scalar with a gradient, and numbers for the log.

        The loop averages both over micro-batches and processes. Move the batch to `device` here.
        """

    def begin(self) -> None:
        """Before the first step of a run that is not resumed, where it will be computed; DDP shares the main
        process's weights afterwards."""
        return None

    def sample(self, step: int) -> dict[str, Image]:
        """Pictures that show how far it is, by name; made without gradients."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be continued: model, data, settings. JSON only."""
        return {}

    def completed(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """The identity in a checkpoint of an earlier version, in today's fields."""
        return dict(saved)

    def stepped(self) -> None:
        """After each update, with the optimizer's memory in place."""
        return None

    def shard_units(self) -> list[nn.Module]:
        """Parts of `module` that FSDP2 gathers one at a time; each must run equally often in every process."""
        return []

    def to(self, device: torch.device) -> None:
        """Move everything to where it will be computed."""
        self.device = device
        self.module.to(device)
