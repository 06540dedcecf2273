"""The config of a training run: a YAML file, `key=value` changes to it, everything checked before it starts."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ..data.config import DataSource
from ..dla import DLASettings, Tokenwise
from ..errors import SqueezeError
from ..flux.loading import Dtype
from ..flux.quantized import Base
from ..gate import Gate
from ..references import MULTIPLE
from .checkpointing import Checkpointing, parse
from .settings import LoopSettings

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
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


class TrainConfig(LoopSettings):
    """A run of stage 1 or stage 2, or of an ablation of them.

    vae_references: whether references reach FLUX as VAE tokens too: false in stage 1, true in stage 2.
    init: a run folder or an adapter file to begin with (stage 2 begins with stage 1's result).
    resolution: side of the square whose area the aspect buckets have. reference_long_side: 0 takes 512 for
        one reference and 320 for several. crop: what is cut of a target that does not fit its bucket.
    timesteps: "uniform_shifted" (UNO: uniform over 1,000 times under FLUX's shift), "logit_normal", or "cosine":
        as often as the sampler's cosine curve visits them.
    pooled: FLUX's pooled vector, "zeros" or "clip_l": CLIP-L's of the prompt; zeros where the context is dropped.
    guidance: FLUX's guidance input while training; inference_guidance: what the adapter tells inference.
    gate: what the adapter tells inference; training has none, all branches hear all times (section 3.5).
    gradient_checkpointing: FLUX's blocks that are computed again in the backward pass: on (all), off (none), a
        number of them, or auto: as few as the GPU's memory allows, by what the first step took.
    calls: how a micro-batch meets FLUX. "few": texts, references and their sizes may all differ; at most two calls
        for targets of one size. "mask" pads the text alone, so that pictures' sizes must be equal, "group" puts
        together what is of equal sizes and lengths, "each" takes one sample at a time, which FSDP2 needs. All are
        the same arithmetic but for rounding.
    compile: torch.compile FLUX's blocks: then one call for targets of one size, in few lengths.
    base: the frozen FLUX's linear layers as they are, in 8 bits ("int8") or in 4 ("nf4") by bitsandbytes.
    latent_cache: folder for VAE latents, about 130 kB a picture of 512 px; None keeps none.
    """

    models: Models
    data: tuple[DataSource, ...] = Field(min_length=1)
    vae_references: bool
    init: str | None = None
    dla: DLASettings = DLASettings()
    lora: LoRASettings = LoRASettings()
    drops: Drops = Drops()
    timesteps: Timesteps = "uniform_shifted"
    pooled: Literal["zeros", "clip_l"] = "zeros"
    guidance: float = Field(default=1.0, ge=0)
    inference_guidance: float = Field(default=2.5, ge=0)
    gate: Gate = Gate()
    placement: Literal["uxo", "offset", "index"] = "uxo"
    system_prompt: str = ""
    tiles: int = Field(default=1, ge=1, le=12)
    resolution: int = Field(default=512, ge=MULTIPLE, multiple_of=MULTIPLE)
    crop: Literal["center", "random"] = "center"
    reference_long_side: int = Field(default=0, ge=0)
    latent_cache: str | None = None
    gradient_checkpointing: Annotated[Checkpointing, BeforeValidator(parse)] = True
    calls: Literal["few", "mask", "group", "each"] = "few"
    compile: bool = False
    base: Base = "as_is"
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.drops.references and not self.vae_references:
            raise ValueError("drops.references is above 0, but vae_references is off: there is nothing to drop.")
        if self.dla.variant == "convolution":
            raise ValueError(f'dla.variant is "convolution"; trained are {", ".join(get_args(Tokenwise))}.')
        if self.pooled == "clip_l" and self.models.clip is None and self.models.flux.endswith(".safetensors"):
            raise ValueError('flux is one file, so pooled "clip_l" needs models.clip.')
        if isinstance(self.gradient_checkpointing, int) and self.gradient_checkpointing < 0:
            raise ValueError("gradient_checkpointing is below 0. Say on, off, auto, or a number of blocks.")
        if self.compile and self.calls != "few":
            raise ValueError(f'compile needs calls "few", whose lengths are few, not "{self.calls}".')
        if self.sharding == "fsdp2" and self.base != "as_is":
            raise ValueError(f'base "{self.base}" cannot be spread by sharding "fsdp2". Take one of the two.')
        if self.sharding == "fsdp2" and self.calls != "each":
            raise ValueError('sharding "fsdp2" needs calls "each": every process must run FLUX equally often.')
        return self


def load_config(path: str | Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a YAML config, with what it `extends` beneath it and `key=value` changes on top.

    changes: such as "steps=100", "dla.lap.blocks=2", "data.0.folder=/data/UNO-1M"; values are YAML.
        "extends=FILE" puts another config beneath, in place of the one that the file names: stage 2 of an
        ablation is stage 2 on top of the ablation.
    Raises `SqueezeError` naming the key, and for an unknown one the nearest known.
    """
    bases = [change.partition("=")[2] for change in changes if change.startswith("extends=")]
    values = read_yaml(Path(path), base=Path(bases[-1]).expanduser().resolve() if bases else None)
    return parse_config(changed(values, [change for change in changes if not change.startswith("extends=")]))


def parse_config(values: dict[str, Any]) -> TrainConfig:
    """Raises `SqueezeError` for the first thing that is wrong, with its key."""
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise SqueezeError(_said_plainly(error)) from error


def read_yaml(path: Path, above: tuple[Path, ...] = (), base: Path | None = None) -> dict[str, Any]:
    """A YAML mapping with the one that its `extends` names, relative to it, merged beneath. Lists replace.

    base: another one instead of that.
    """
    import yaml

    path = path.expanduser().resolve()
    if path in above:
        raise SqueezeError(f'"{path}" extends itself by way of "{above[-1].name}". Remove one extends.')
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SqueezeError(f'There is no config "{path}". The shipped ones lie in configs/.') from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SqueezeError(f'The config "{path}" cannot be read as YAML ({error}).') from error
    if not isinstance(values, dict):
        raise SqueezeError(f'The config "{path}" must be a mapping of keys to values.')
    extends = values.pop("extends", None)
    if base is None and extends is not None:
        base = path.parent / str(extends)
    return values if base is None else merged(read_yaml(base, (*above, path)), values)


def changed(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The values with `a.b=value` changes applied. Raises `SqueezeError` for one that does not read."""
    import yaml

    values = merged(values, {})
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise SqueezeError(f'"{change}" is no change of the config. Write key=value, such as steps=100.')
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SqueezeError(f'The value of "{change}" cannot be read as YAML ({error}).') from error
        _put(values, key.split("."), value, key)
    return values


def _put(values: Any, parts: list[str], value: Any, key: str) -> None:
    first, *rest = parts
    if isinstance(values, list):
        if not first.isdigit() or int(first) >= len(values):
            raise SqueezeError(f'"{key}" names entry {first} of a list of {len(values)}. Count from 0.')
        at: Any = int(first)
    elif isinstance(values, dict):
        at = first
    else:
        raise SqueezeError(f'"{key}" reaches into {values!r}, which has no parts. Check the key.')
    if not rest:
        values[at] = value
        return
    if isinstance(values, dict) and values.get(at) is None:
        values[at] = {}
    _put(values[at], rest, value, key)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A copy of base with mappings merged; anything else in `over` replaces."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def _said_plainly(error: ValidationError) -> str:
    first = error.errors()[0]
    where = [
        part for part in first["loc"] if part not in ("uno", "musar", "toyworld")
    ]  # a tag of the kind, not a key
    key = ".".join(str(part) for part in where)
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        near = difflib.get_close_matches(str(where[-1]), _known_keys(where[:-1]), 1, 0.5)
        hint = f'Did you mean "{".".join([*map(str, where[:-1]), near[0]])}"?' if near else "Remove it."
        return f'The config has the unknown key "{key}". {hint}'
    if first["type"] == "missing":
        return f'The config lacks "{key}". Add it to the file, or give {key}=... on the command line.'
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not key:
        return f"The config does not fit together: {message}."
    return f'The config\'s "{key}" is {first["input"]!r}: {message}.'


def _known_keys(where: Sequence[Any]) -> list[str]:
    """The keys that may stand at a place of the config."""
    kinds: list[Any] = [TrainConfig]
    for part in where:
        if isinstance(part, int):
            continue
        kinds = [
            model
            for kind in kinds
            for name, annotation in _fields(kind).items()
            if name == part
            for model in _models_in(annotation)
        ]
    return [name for kind in kinds for name in _fields(kind)]


def _fields(kind: Any) -> dict[str, Any]:
    """Names and types of a pydantic model's fields, or of a dataclass's."""
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return get_type_hints(kind)


def _models_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
