"""A task of two linear maps, to try the loop itself on; also a program, so that it can be killed.

python regression.py RUN STEPS SETTINGS_JSON [--resume]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from PIL import Image
from torch import nn

from squeeze_core.draws import Draws
from squeeze_core.training.settings import LoopSettings
from squeeze_core.training.task import Task


class Maps(nn.Module):
    """The first map is registered last, as the aggregator is in training: DDP meets them in another order."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.between = nn.Sequential(nn.Tanh(), nn.Dropout(dropout))
        self.last = nn.Linear(32, 8)
        self.first = nn.Linear(8, 32)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(vectors)))


class Regression(Task):
    """Learns to turn vectors round. nan_at: a sample index whose loss is no number."""

    def __init__(self, seed: int = 0, nan_at: int | None = None, dropout: float = 0.0) -> None:
        self.draws = Draws(seed)
        self.nan_at = nan_at
        generator = torch.Generator().manual_seed(0)
        self.module = Maps(dropout)
        for parameter in self.module.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 5
        self.seen: list[int] = []

    def batch(self, indices: Sequence[int]) -> tuple[list[int], torch.Tensor]:
        self.seen += indices
        return list(indices), torch.stack([self.draws.normal("vector", index, (8,)) for index in indices])

    def loss(self, batch: tuple[list[int], torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        indices, vectors = batch
        loss = (self.module(vectors) - vectors.flip(-1)).square().mean()
        return loss * (float("nan") if self.nan_at in indices else 1.0), {"size": float(vectors.abs().mean())}

    def sample(self, step: int) -> dict[str, Image.Image]:
        level = self.module(torch.ones(1, 8)).mean()  # as a real one, runs the model
        return {"grey": Image.new("RGB", (8, 8), (int(level.sigmoid() * 255),) * 3)}

    def identity(self) -> dict[str, Any]:
        return {"width": 32}

    def shard_units(self) -> list[nn.Module]:
        return [self.module.first]  # the other belongs to the root


def settings(steps: int = 20, **changes: Any) -> LoopSettings:
    values = {"batch_size": 8, "learning_rate": 1e-2, "save_every": 5, "device": "cpu", "tensorboard": False}
    return LoopSettings(steps=steps, **{**values, **changes})


def main() -> int:
    from squeeze_core.training.loop import Trainer

    torch.set_num_threads(1)
    changes = json.loads(sys.argv[3])
    task = Regression(dropout=changes.pop("dropout", 0.0))
    result = Trainer(task, settings(int(sys.argv[2]), **changes), sys.argv[1]).run("--resume" in sys.argv)
    print(f"saw {len(set(task.seen))} samples")
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    from squeeze_core.training.loop import leave_processes

    status = main()
    leave_processes()
    raise SystemExit(status)
