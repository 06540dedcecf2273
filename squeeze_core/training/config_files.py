"""Which kind of run a config is of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config_files import checked, read
from ..data.config import KINDS
from .config import TrainConfig
from .distillation.config import DistillConfig
from .planner.config import PlannerTraining

AnyConfig = TrainConfig | DistillConfig | PlannerTraining


def load_config(path: str | Path, changes: Sequence[str] = ()) -> AnyConfig:
    """A YAML file and changes to it, see `config_files.read`. Raises `SqueezeError`."""
    return parse_config(read(path, changes))


def parse_config(values: dict[str, Any]) -> AnyConfig:
    """By its stage: 0 is distillation, "planner" a planner's. Raises `SqueezeError` for what is wrong first."""
    if values.get("stage") == 0:
        return checked(values, DistillConfig, KINDS)
    if values.get("stage") == "planner":
        return checked(values, PlannerTraining, KINDS)
    return checked(values, TrainConfig, KINDS)
