"""Which kind of run a config is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config_files import checked, read
from ..data.config import KINDS
from .config import TrainConfig
from .distillation.config import DistillConfig


def load_config(path: str | Path, changes: Sequence[str] = ()) -> TrainConfig | DistillConfig:
    """A YAML file and changes to it, see `config_files.read`. Raises `SqueezeError`."""
    return parse_config(read(path, changes))


def parse_config(values: dict[str, Any]) -> TrainConfig | DistillConfig:
    """`stage: 0` is distillation. Raises `SqueezeError` for the first thing that is wrong, with its key."""
    if values.get("stage") == 0:
        return checked(values, DistillConfig, KINDS)
    return checked(values, TrainConfig, KINDS)
