"""The config of a planner's training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...data.config import MusicSource
from ..config import LoRASettings
from ..settings import LoopSettings

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PlannerModels(BaseModel):
    """mllm: a folder, or "toyworld". mllm_name: what the planner tells its users to load."""

    model_config = _FROZEN

    mllm: str
    mllm_dtype: Literal["default", "fp32", "bf16", "fp16"] = "bf16"
    mllm_name: str | None = None


class PlannerTraining(LoopSettings):
    """A run that trains a planner.

    data: scenes with plans, see `squeeze data build`. gradient_checkpointing: of the MLLM's layers.
    """

    stage: Literal["planner"]
    models: PlannerModels
    data: tuple[MusicSource, ...] = Field(min_length=1)
    lora: LoRASettings = LoRASettings(rank=64, alpha=64)
    tiles: int = Field(default=1, ge=1, le=12)
    gradient_checkpointing: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> PlannerTraining:
        if self.lora.rank < 1:
            raise ValueError("lora.rank is 0: there is nothing to train.")
        if self.sharding == "fsdp2":
            raise ValueError('sharding "fsdp2" is for stages 1 and 2; a planner fits one GPU.')
        return self
