"""The config of a run of stage 1 or 2, and what every stage shares."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ..data.config import DataSource
from ..dla import DLASettings, Tokenwise
from ..flux.loading import Dtype
from ..flux.quantized import Base
from ..gate import Gate
from ..references import MULTIPLE
from .checkpointing import Checkpointing, parse
from .settings import LoopSettings

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Placement = Literal["uxo", "offset", "index"]  # of references, where a run must say which
Pooled = Literal["zeros", "clip_l"]
Timesteps = Literal["uniform_shifted", "logit_normal", "cosine"]


class Models(BaseModel):
    """Where the base models lie. "toyworld" takes that part of the toy world.

    flux, vae: a diffusers folder or a .safetensors file; vae None is the VAE in the folder of flux. mllm: a
        folder. clip: a folder, see `squeeze_core.flux.clip.load`; None is the one in the folder of flux.
    dtype: of FLUX and the VAE; mllm_dtype: of the MLLM; all of them stay frozen.
    flux_name, mllm_name: what the adapter tells its users to load; None means the last part of the path.
    """

    model_config = _FROZEN

    flux: str
    mllm: str
    vae: str | None = None
    clip: str | None = None
    dtype: Dtype = "bf16"
    mllm_dtype: Literal["default", "fp32", "bf16", "fp16", "fp8_e4m3fn"] = "bf16"
    flux_name: str | None = None
    mllm_name: str | None = None

    @model_validator(mode="after")
    def _vae_known(self) -> Models:
        if self.vae is None and self.flux.endswith(".safetensors"):
            raise ValueError("flux is one file, so the VAE must be given as models.vae.")
        return self


class LoRASettings(BaseModel):
    """On the attention of FLUX. rank 0 trains none. alpha None means alpha = rank, a scale of 1."""

    model_config = _FROZEN

    rank: int = Field(default=512, ge=0)
    alpha: float | None = Field(default=None, gt=0)


class Drops(BaseModel):
    """Independent probabilities with which a sample does without (sections 3.4 and 3.5).

    pictures: references left out of the MLLM's prompt, the text stays. references: VAE tokens left out.
    context: the whole MLLM context gone, as in the gate's late stage: one zero token, a zero pooled vector.
    """

    model_config = _FROZEN

    pictures: float = Field(default=0.1, ge=0, le=1)
    references: float = Field(default=0.0, ge=0, le=1)
    context: float = Field(default=0.1, ge=0, le=1)


class Sampling(BaseModel):
    """Pictures made every `sample_every` steps. Without prompts, the first examples of the data are taken.

    prompts: texts; images: for each prompt the files of its references. count: examples of the data.
    """

    model_config = _FROZEN

    prompts: tuple[str, ...] = ()
    images: tuple[tuple[str, ...], ...] = ()
    count: int = Field(default=4, ge=1)
    steps: int = Field(default=28, ge=1)
    true_cfg: float = 1.0

    @model_validator(mode="after")
    def _one_list_each(self) -> Sampling:
        if self.images and len(self.images) != len(self.prompts):
            raise ValueError(f"there are {len(self.prompts)} prompts and {len(self.images)} lists of images.")
        return self


class StageConfig(LoopSettings):
    """What every stage has.

    init: a run folder or an adapter file to begin with: stage 2 with stage 1's result, stage 1 with stage 0's. One
        without a LoRA gives its aggregator, and the LoRA is new.
    pooled: FLUX's pooled vector, "zeros" or "clip_l": CLIP-L's of the prompt; zeros where the context is dropped.
    guidance: FLUX's guidance input while training.
    resolution: side of the square whose area the aspect buckets have.
    gradient_checkpointing: FLUX's blocks that are computed again in the backward pass: on (all), off (none), a
        number of them, or auto: as few as the GPU's memory allows, by what the first step took.
    compile: torch.compile FLUX's blocks: then one call for targets of one size, in few lengths.
    base: the frozen FLUX's linear layers as they are, in 8 bits ("int8") or in 4 ("nf4") by bitsandbytes.
    """

    models: Models
    init: str | None = None
    dla: DLASettings = DLASettings()
    pooled: Pooled = "zeros"
    guidance: float = Field(default=1.0, ge=0)
    system_prompt: str = ""
    tiles: int = Field(default=1, ge=1, le=12)
    resolution: int = Field(default=512, ge=MULTIPLE, multiple_of=MULTIPLE)
    gradient_checkpointing: Annotated[Checkpointing, BeforeValidator(parse)] = True
    compile: bool = False
    base: Base = "as_is"
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _trainable(self) -> StageConfig:
        if self.dla.variant == "convolution":
            raise ValueError(f'dla.variant is "convolution"; trained are {", ".join(get_args(Tokenwise))}.')
        if self.pooled == "clip_l" and self.models.clip is None and self.models.flux.endswith(".safetensors"):
            raise ValueError('flux is one file, so pooled "clip_l" needs models.clip.')
        if isinstance(self.gradient_checkpointing, int) and self.gradient_checkpointing < 0:
            raise ValueError("gradient_checkpointing is below 0. Say on, off, auto, or a number of blocks.")
        if self.sharding == "fsdp2" and self.base != "as_is":
            raise ValueError(f'base "{self.base}" cannot be spread by sharding "fsdp2". Take one of the two.')
        return self


class TrainConfig(StageConfig):
    """A run of stage 1 or stage 2, or of an ablation of them.

    vae_references: whether references reach FLUX as VAE tokens too: false in stage 1, true in stage 2.
    reference_long_side: 0 takes 512 for one reference and 320 for several. crop: what is cut of a target that does
        not fit its bucket.
    timesteps: "uniform_shifted" (UNO: uniform over 1,000 times under FLUX's shift), "logit_normal", or "cosine":
        as often as the sampler's cosine curve visits them.
    inference_guidance: what the adapter tells inference.
    gate: what the adapter tells inference; training has none, all branches hear all times (section 3.5).
    calls: how a micro-batch meets FLUX. "few": texts, references and their sizes may all differ; at most two calls
        for targets of one size. "mask" pads the text alone, so that pictures' sizes must be equal, "group" puts
        together what is of equal sizes and lengths, "each" takes one sample at a time, which FSDP2 needs. All are
        the same arithmetic but for rounding.
    latent_cache: folder for VAE latents, about 130 kB a picture of 512 px; None keeps none.
    separate_encodes, layout, plan_text: MUSIC's f2, of examples that have a plan (`kind: music`), see `planned`:
        each subject read by itself, words and references bound to its place, the plan's text in front.
    """

    data: tuple[DataSource, ...] = Field(min_length=1)
    vae_references: bool
    lora: LoRASettings = LoRASettings()
    drops: Drops = Drops()
    timesteps: Timesteps = "uniform_shifted"
    inference_guidance: float = Field(default=2.5, ge=0)
    gate: Gate = Gate()
    placement: Placement = "uxo"
    crop: Literal["center", "random"] = "center"
    reference_long_side: int = Field(default=0, ge=0)
    latent_cache: str | None = None
    calls: Literal["few", "mask", "group", "each"] = "few"
    separate_encodes: bool = False
    layout: bool = False
    plan_text: bool = False

    @property
    def plans(self) -> bool:
        """Whether the plans of examples are of any use."""
        return self.separate_encodes or self.layout or self.plan_text

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.drops.references and not self.vae_references:
            raise ValueError("drops.references is above 0, but vae_references is off: there is nothing to drop.")
        if self.layout and self.compile:
            raise ValueError("layout changes attention from sample to sample, which compile cannot follow.")
        if self.layout and not (self.separate_encodes or self.vae_references):
            raise ValueError("layout has nothing to bind: set separate_encodes, or vae_references, or both.")
        if self.compile and self.calls != "few":
            raise ValueError(f'compile needs calls "few", whose lengths are few, not "{self.calls}".')
        if self.sharding == "fsdp2" and self.calls != "each":
            raise ValueError('sharding "fsdp2" needs calls "each": every process must run FLUX equally often.')
        return self
