"""The config of `squeeze data build`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from ...config_files import checked, read
from ...flux.loading import Dtype
from ...planning.plan import MOST_SUBJECTS

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RealModels(BaseModel):
    """Folders, but lora, which is a file. Each stands for one line of the paper's pipeline.

    writer: an LLM of Qwen3's kind. painter: FLUX.1-dev with its encoders, a diffusers folder. lora: UNO's, for
    other views. detector: GroundingDINO. judge: a VLM such as Qwen2.5-VL. segmenter: SAM2. likeness: CLIP ViT-L/14.
    """

    model_config = _FROZEN

    writer: str
    painter: str
    lora: str
    detector: str
    judge: str
    segmenter: str
    likeness: str
    dtype: Dtype = "bf16"
    judge_dtype: Literal["default", "fp32", "bf16", "fp16", "fp8_e4m3fn"] = "bf16"


class ToyModels(BaseModel):
    """The toy world in place of every model. noise: share of answers of each that are wrong."""

    model_config = _FROZEN

    world: Literal["toyworld"] = "toyworld"
    noise: dict[str, float] = {}


def _which_models(given: Any) -> str:
    """Toys where a world is named."""
    toys = isinstance(given, ToyModels) or (isinstance(given, dict) and "world" in given)
    return "toy" if toys else "real"


class MusicConfig(BaseModel):
    """samples: records to begin with. subjects: fewest and most of a scene.

    categories: "objects365", or a file with a name a line. candidates: names of it that the LLM chooses among, for
        each record. resolution: of targets; reference_side: of references, px. steps, guidance: of both.
    min_area: of a box, as a part of the picture. decimate: also every record without its smallest subjects.
    batch: records handed to a model at once. tries: before a record that fails is set aside. sheets: samples shown.
    """

    model_config = _FROZEN

    models: Annotated[
        Annotated[RealModels, Tag("real")] | Annotated[ToyModels, Tag("toy")], Discriminator(_which_models)
    ]
    samples: int = Field(ge=1, le=10_000_000)
    seed: int = Field(default=0, ge=0)
    subjects: tuple[int, int] = (2, MOST_SUBJECTS)
    categories: str = "objects365"
    candidates: int = Field(default=24, ge=2)
    resolution: int = Field(default=1024, ge=64, multiple_of=16)
    reference_side: int = Field(default=512, ge=64, multiple_of=16)
    steps: int = Field(default=28, ge=1)
    guidance: float = Field(default=3.5, ge=0)
    min_area: float = Field(default=0.01, ge=0, lt=1)
    decimate: bool = True
    batch: int = Field(default=8, ge=1)
    tries: int = Field(default=2, ge=1)
    sheets: int = Field(default=48, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> MusicConfig:
        fewest, most = self.subjects
        if not 2 <= fewest <= most <= MOST_SUBJECTS:
            raise ValueError(f"subjects is {fewest} to {most}; a scene has 2 to {MOST_SUBJECTS}.")
        if self.candidates < most:
            raise ValueError(f"candidates is {self.candidates}, and a scene has up to {most} of them.")
        return self

    def identity(self) -> dict[str, Any]:
        """What a build must agree with to go on."""
        return self.model_dump(mode="json", exclude={"batch", "tries", "sheets"})


def load_config(path: str | Path, changes: Sequence[str] = ()) -> MusicConfig:
    """A YAML file and changes to it, see `config_files.read`. Raises `SqueezeError`."""
    return checked(read(path, changes), MusicConfig, ("real", "toy"))
