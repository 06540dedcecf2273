"""Settings of the training loop, the same for whatever is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import SqueezeError
from .attention import SAFE, AttentionKernel

# What a run may change when it goes on: how it is computed, saved and shown, not what is learned.
_MAY_CHANGE = {"micro_batch", "sharding", "device", "deterministic", "attention_kernels", "save_every", "keep"}
_MAY_CHANGE |= {"sample_every", "workers", "tensorboard"}


class LoopSettings(BaseModel):
    """How long, how fast, how often saved.

    batch_size: samples a step, over all processes and micro-batches together, so that a run means the same on
        any number of GPUs. micro_batch: samples of one forward in one process; what is missing to the batch
        is accumulated. None means that a process takes its share at once.
    learning_rate, warmup, schedule: linear from 0 over `warmup` steps, then constant or a cosine to 0.
    cooldown: linear to 0 over so many last steps, on top of the schedule. With a constant schedule, `steps` may
        still be moved when a run goes on, as long as its cooldown has not begun.
    clip: of the gradient's norm. ema: decay of an average of the weights, None for none.
    precision: "bf16" computes in autocast, weights stay as they are. sharding: "fsdp2" spreads weights and
        optimizer over the processes; "none" is one process, or DDP.
    deterministic: choose GPU kernels that add in a fixed order, for runs that are to agree to the last bit, at
        some cost in speed. CPUs always do; on a GPU the attention's backward pass does not by itself, nor do
        more than two processes with DDP, which sorts its buckets anew after the first step of each start.
    attention_kernels: that forward and backward passes may use, of flash, efficient and math; PyTorch picks among
        them at each call. cuDNN's is none of them: on Hopper GPUs its backward pass dies.
    save_every, keep: steps between checkpoints and how many stay. sample_every: 0 for no pictures.
    workers: threads that make batches ahead; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=1e-5, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = Field(default=0, ge=0)
    cooldown: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    clip: float = Field(default=1.0, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    sharding: Literal["none", "fsdp2"] = "none"
    device: Literal["auto", "cpu"] = "auto"
    deterministic: bool = False
    attention_kernels: tuple[AttentionKernel, ...] = Field(default=SAFE, min_length=1)
    save_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1)
    sample_every: int = Field(default=0, ge=0)
    workers: int = Field(default=2, ge=0, le=64)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _possible(self) -> LoopSettings:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}; each must lie in 0 to below 1.")
        return self

    @property
    def on_cpu(self) -> bool:
        """Whether CPUs train, by choice or for want of anything else.

        accelerate must be told: where it finds no accelerator by itself, it leaves each of several processes alone.
        """
        import torch

        return self.device == "cpu" or not torch.accelerator.is_available()

    def learning_rate_at(self, step: int) -> float:
        """Of the step that makes step `step` + 1 out of step `step`."""
        rate = self.learning_rate
        if step < self.warmup:
            return rate * (step + 1) / self.warmup
        if self.schedule == "cosine":
            done = (step - self.warmup) / max(1, self.steps - self.warmup)
            rate *= (1 + math.cos(math.pi * min(1.0, done))) / 2
        if self.cooldown:
            rate *= min(1.0, (self.steps - step) / self.cooldown)
        return rate

    def batch_layout(self, processes: int) -> BatchLayout:
        """How a step's samples lie on so many processes. Raises `SqueezeError` when they cannot lie evenly."""
        micro = self.micro_batch or max(1, self.batch_size // processes)
        if self.batch_size % (micro * processes):
            raise SqueezeError(
                f"batch_size is {self.batch_size}, which {processes} process(es) with micro_batch {micro} cannot "
                f"share evenly. Make batch_size a multiple of {micro * processes}, or change micro_batch."
            )
        return BatchLayout(self.batch_size, micro, processes)

    def identity(self) -> dict:
        """What a checkpoint must agree with; the rest may change between two parts of a run."""
        free = _MAY_CHANGE if self.schedule == "cosine" else _MAY_CHANGE | {"steps"}
        return self.model_dump(mode="json", include=set(LoopSettings.model_fields) - free)

    def completed(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """The identity in a checkpoint of an earlier version: fields that it did not know had their defaults."""
        defaults = LoopSettings(steps=1, batch_size=1).model_dump(mode="json", include=set(self.identity()))
        return {**defaults, **saved}


@dataclass(frozen=True)
class BatchLayout:
    """Which global sample indices a process takes at a micro-batch of a step."""

    batch_size: int
    micro_batch: int
    processes: int

    @property
    def accumulation(self) -> int:
        """Micro-batches of a process in a step."""
        return self.batch_size // (self.micro_batch * self.processes)

    def indices(self, step: int, part: int, process: int) -> range:
        """Sample indices of micro-batch `part` of `process`; over both, each index of the step once."""
        start = step * self.batch_size + (part * self.processes + process) * self.micro_batch
        return range(start, start + self.micro_batch)
