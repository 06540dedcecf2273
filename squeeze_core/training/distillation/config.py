"""The config of a run of stage 0."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...data.config import ToldSource
from ...gate import Gate
from ..config import Models as _Models
from ..config import Pooled, StageConfig

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Models(_Models):
    """As the other stages', and the teacher's text encoder.

    text_encoder: a folder of T5 with its tokenizer; None is the one in the folder of flux (text_encoder_2,
        tokenizer_2).
    """

    text_encoder: str | None = None


class Distillation(BaseModel):
    """What the student is held to.

    fit: samples of the least-squares fit that a new run begins with; 0 for none, and the projector is random.
    sigmas: "noise": pure noise at sigma 1, as X2I, which needs no sampling; "trajectory": a drawn level of the
        teacher's own `steps`-step sampling from that noise, by Euler.
    attention: weight of X2I's loss beside the velocity's 1, see `attention`.
    """

    model_config = _FROZEN

    fit: int = Field(default=2000, ge=0)
    sigmas: Literal["noise", "trajectory"] = "noise"
    steps: int = Field(default=8, ge=2)
    attention: float = Field(default=0.0, ge=0)


class DistillConfig(StageConfig):
    """A run of stage 0.

    teacher_pooled: what the teacher hears as pooled vector; `pooled` is what the student hears.
    words: tokens of T5 that the teacher hears, padded to so many as FLUX is used to; 0 for as many as there are.
    words_cache: folder for T5's states by text, 4 MB each at 512 tokens; None encodes each time it is needed.
    guidance: FLUX's guidance input, of teacher and student alike, and what the adapter tells inference.
    """

    stage: Literal[0]
    models: Models
    data: tuple[ToldSource, ...] = Field(min_length=1)
    distillation: Distillation = Distillation()
    teacher_pooled: Pooled = "clip_l"
    words: int = Field(default=512, ge=0, le=512)
    words_cache: str | None = None
    guidance: float = Field(default=3.5, ge=0)

    @property
    def gate(self) -> Gate:
        """Neither silence of the MLLM nor references were met: it speaks in every step."""
        return Gate(0.0, 0.0, "keep")

    @property
    def hears_clip(self) -> bool:
        return "clip_l" in (self.pooled, self.teacher_pooled)

    @model_validator(mode="after")
    def _fits_together(self) -> DistillConfig:
        if self.models.flux.endswith(".safetensors"):
            if self.models.text_encoder is None:
                raise ValueError("flux is one file, so the teacher needs models.text_encoder, a folder of T5.")
            if self.hears_clip and self.models.clip is None:
                raise ValueError("flux is one file, so CLIP-L's pooled vector needs models.clip.")
        if self.compile and self.distillation.attention:
            raise ValueError("compile cannot be looked into for distillation.attention. Take one of the two.")
        if self.sharding == "fsdp2":
            raise ValueError('sharding "fsdp2" is for stages 1 and 2. For less memory take base int8 or nf4.')
        return self
