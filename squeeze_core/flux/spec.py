"""The shape of a FLUX, by which an adapter knows the model that it was trained on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DiTSpec(BaseModel):
    """The diffusion transformer that the LoRA was trained on.

    channels: that a picture's token brings; Fill, Canny and Depth read more than FLUX.1-dev.
    guidance: whether guidance is embedded; FLUX.1-schnell's is not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: Literal["flux"] = "flux"
    width: int = Field(ge=1)
    double_blocks: int = Field(ge=0)
    single_blocks: int = Field(ge=0)
    context: int = Field(ge=1)
    channels: int = Field(default=64, ge=1)
    guidance: bool = True
    name: str = ""
