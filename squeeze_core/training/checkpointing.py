"""Which of FLUX's blocks are computed again in the backward pass, in place of keeping their activations.

All of them cost a second forward pass: a third of a step's arithmetic with frozen weights. As few as memory needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

Checkpointing = bool | int | Literal["on", "off", "auto"]
SHARE = 0.92  # of the GPU's memory that "auto" fills
HEADROOM = 1.15  # on what a block was seen to keep: the next batch may be longer


@dataclass(frozen=True)
class Memory:
    """What a device says, in bytes. On a CPU nothing is known, and "auto" checkpoints all."""

    now: Callable[[], int]
    peak: Callable[[], int]
    total: Callable[[], int]

    @staticmethod
    def of(device: torch.device) -> Memory | None:
        if device.type != "cuda":
            return None
        return Memory(
            lambda: torch.cuda.memory_allocated(device),
            lambda: torch.cuda.max_memory_allocated(device),
            lambda: torch.cuda.get_device_properties(device).total_memory,
        )


@dataclass
class Blocks:
    """Set as the transformer's checkpointing function; decides block by block.

    setting: see `TrainConfig.gradient_checkpointing`. again: blocks that are computed again, the first ones: FLUX's
    double blocks keep most. kept: bytes that a block of each kind was seen to keep, for "auto".
    """

    setting: Checkpointing
    order: dict[nn.Module, int]
    again: int
    memory: Memory | None = None
    kept: dict[type, int] = field(default_factory=dict)
    settled: bool = False

    @classmethod
    def of(cls, transformer: FluxTransformer2DModel, setting: Checkpointing) -> Blocks:
        """On a transformer, which asks it from now on."""
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        again = len(blocks) if setting in ("on", "auto") or setting is True else 0
        if isinstance(setting, int) and not isinstance(setting, bool):
            again = min(setting, len(blocks))
        chosen = cls(setting, {block: number for number, block in enumerate(blocks)}, again)
        chosen.settled = setting != "auto"
        if chosen.again or not chosen.settled:
            transformer.enable_gradient_checkpointing(chosen)
        return chosen

    def __call__(self, block: nn.Module, *arguments: Any) -> Any:
        if not self.settled and self.memory is not None and type(block) not in self.kept:
            before = self.memory.now()
            result = block(*arguments)
            self.kept[type(block)] = max(1, self.memory.now() - before)
            return result
        if self.order[block] >= self.again:
            return block(*arguments)
        return checkpoint(block, *arguments, use_reentrant=False)

    def settle(self) -> None:
        """After a whole step: for "auto", as few as the memory allows. Later calls change nothing.

        The first step kept one block of each kind in full, so its peak has them.
        """
        if self.settled or self.memory is None or not self.kept:
            return
        self.settled = True
        free = SHARE * self.memory.total() - self.memory.peak() + sum(self.kept.values())
        for block in reversed(list(self.order)):
            free -= HEADROOM * self.kept.get(type(block), max(self.kept.values()))
            if free < 0:
                return
            self.again = self.order[block]


def parse(value: Any) -> Any:
    """YAML's on and off are true and false; a number is of blocks. Anything else is for pydantic to refuse."""
    return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value
