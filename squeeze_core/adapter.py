"""The adapter file: everything of a trained model beyond the base models, in one safetensors.

Keys: `dla.*` and `projector.*` (an `Aggregator`), and the LoRA as
`transformer.<diffusers module>.lora_A.weight` and `lora_B.weight` with alpha / rank multiplied into B and no
`.alpha` keys: that form means the same in diffusers, in peft and in ComfyUI's own LoRA loader. The header holds
an `AdapterConfig` under `squeeze`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from .dla import Aggregator, DLAConfig
from .errors import SqueezeError
from .files import checked_header, save_atomically
from .flux.lora import check_lora
from .flux.spec import DiTSpec
from .gate import Gate
from .mllm.backbone import MLLMIdentity, Prompt
from .mllm.prompt import MAX_TILES, PROMPT_TEMPLATE
from .mllm.reading import PLAIN, Reading
from .mllm.states import LayerStates

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1
HEADER_KEY = "squeeze"
LORA_PREFIX = "transformer."

# What a difference from FLUX.1-dev means.
_UNLIKE_DEV = {
    "channels": "FLUX.1 Fill, Canny and Depth read a further picture's. ",
    "guidance": "FLUX.1-schnell has no guidance embedding. ",
}
_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AdapterConfig(BaseModel):
    """What inference must know, saved as JSON in the header of the file.

    mllm: that the aggregator was trained on. gate: that the model was trained for; a user may set another.
    prompt_template: how text and pictures were put to the MLLM; a version that reads them otherwise refuses.
    reading: form of the text, size of pictures, padding. system_prompt, tiles: see `Prompt`.
    pooled: the pooled vector that FLUX was trained with here: "zeros", that of CLIP-L, or the aligner's own.
    guidance: the value for FLUX's guidance embedding. lora_rank: 0 for no LoRA.
    long_side: of references in training, in pixels; 0: 512 for a lone one, 320 each for several.
    trained_by: free text; empty means that the weights are untrained.
    """

    model_config = _FROZEN

    format: int = FORMAT
    mllm: MLLMIdentity
    dit: DiTSpec
    dla: DLAConfig
    prompt_template: Literal["chatml-pictures-first-v1"] = PROMPT_TEMPLATE
    system_prompt: str = ""
    tiles: int = Field(default=1, ge=1, le=MAX_TILES)
    reading: Reading = PLAIN
    pooled: Literal["zeros", "clip_l", "aligner"] = "zeros"
    gate: Gate = Gate()
    placement: Literal["uxo", "offset", "index"] = "uxo"
    attention: Literal["joint", "cached"] = "joint"
    guidance: float = Field(default=2.5, ge=0)
    lora_rank: int = Field(default=0, ge=0)
    long_side: int = Field(default=0, ge=0)
    trained_by: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> AdapterConfig:
        for name, pooled, joined in (
            ("layers", self.dla.layers, self.mllm.layers + 1),
            ("hidden", self.dla.hidden, self.mllm.hidden_size),
            ("context", self.dla.context, self.dit.context),
        ):
            if pooled != joined:
                raise SqueezeError(f"dla.{name} is {pooled} and the model beside it asks for {joined}")
        if self.pooled == "aligner" and self.dla.variant != "convolution":
            raise SqueezeError(f'pooled is "aligner", which the variant "{self.dla.variant}" does not have')
        return self

    def prompt(self, text: str, images: tuple[Image, ...] = ()) -> Prompt:
        """As the MLLM was asked in training."""
        return Prompt(text, images, self.system_prompt, self.tiles, self.reading)

    def asked_otherwise(self, states: LayerStates) -> list[str]:
        """Where the MLLM was asked otherwise than in training, each with both values; unknown is passed over."""
        found = []
        if states.tiles not in (None, self.tiles) and states.image_tokens and not self.reading.picture_side:
            found.append(f"tiles is {states.tiles}, and the adapter was trained with {self.tiles}")
        if states.system_prompt not in (None, self.system_prompt):
            given, trained = states.system_prompt, self.system_prompt
            found.append(f'system_prompt is "{given}", and the adapter was trained with "{trained}"')
        return found + ([] if states.reading is None else self.reading.unlike(states.reading))

    def check_mllm(self, given: MLLMIdentity) -> None:
        """Raise `SqueezeError` with both values unless `given` is the MLLM trained on."""
        for field in ("model_type", "hidden_size", "layers", "final_norm_hash"):
            if getattr(given, field) != getattr(self.mllm, field):
                raise SqueezeError(
                    f"The adapter was trained on {self.mllm.name or self.mllm.label} "
                    f"({field} {getattr(self.mllm, field)}) and the MLLM given is {given.label} "
                    f"({field} {getattr(given, field)}). Load the one that the adapter names."
                )

    def check_states(self, model_id: str) -> None:
        """Like `check_mllm`, from `LayerStates.model_id`."""
        if model_id != self.mllm.label:
            raise SqueezeError(
                f"The adapter was trained on {self.mllm.name or 'an MLLM'} ({self.mllm.label}) and "
                f"the states come from {model_id}. Encode with the MLLM that the adapter names."
            )

    def check_attention(self) -> None:
        """Raise `SqueezeError` unless the references join the sequence, the one way that is there."""
        if self.attention != "joint":
            raise SqueezeError(
                f'This adapter asks for "{self.attention}" attention to references, which this version does not '
                'have. Use one trained with "joint".'
            )

    def check_dit(self, given: DiTSpec) -> None:
        """Raise `SqueezeError` with both values unless the diffusion model has the shape trained on."""
        for field in (name for name in DiTSpec.model_fields if name != "name"):
            if getattr(given, field) != getattr(self.dit, field):
                raise SqueezeError(
                    f"The adapter is for {self.dit.name or 'a diffusion model'} with {field} "
                    f"{getattr(self.dit, field)}, and the model given has {field} {getattr(given, field)}. "
                    f"{_UNLIKE_DEV.get(field, '')}Load the diffusion model that the adapter was trained on."
                )


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory.

    lora: `transformer.<diffusers module>.lora_A.weight` [rank, in] and `lora_B.weight` [out, rank].
    """

    config: AdapterConfig
    aggregator: Aggregator
    lora: dict[str, torch.Tensor]


def save(
    path: str | Path,
    config: AdapterConfig,
    aggregator: Mapping[str, torch.Tensor],
    lora: Mapping[str, torch.Tensor],
) -> None:
    """Write an adapter atomically: to a temporary file beside it, synced, then renamed.

    aggregator: the state dict of an `Aggregator`. lora: as in `Adapter`, see `lora.baked` for other forms.
    Raises `SqueezeError` before anything is written when a tensor is missing, misshapen or not finite.
    """
    tensors = {**aggregator, **lora}
    _check_tensors({key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}, config, path)
    for key, tensor in tensors.items():
        _check_finite(key, tensor, path)
    save_atomically(path, tensors, {HEADER_KEY: config.model_dump_json()})


def load(path: str | Path) -> Adapter:
    """Read an adapter whole. Raises `SqueezeError` in one sentence for anything that is not a sound one.

    Tensors keep the dtype of the file.
    """
    config = read_config(path)
    tensors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, not a mapping
                tensors[key] = file.get_tensor(key)
    except SafetensorError as error:
        raise _broken(path, error) from error
    _check_tensors({key: (tensor.dtype, tuple(tensor.shape)) for key, tensor in tensors.items()}, config, path)
    for key, tensor in tensors.items():
        _check_finite(key, tensor, path)
    with torch.device("meta"):
        aggregator = Aggregator(config.dla)
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith(LORA_PREFIX)}
    aggregator.load_state_dict(own, assign=True)
    aggregator.requires_grad_(False).eval()
    return Adapter(config, aggregator, {key: t for key, t in tensors.items() if key.startswith(LORA_PREFIX)})


def read_config(path: str | Path) -> AdapterConfig:
    """The config in the header, without reading a tensor. Raises `SqueezeError`."""
    path = Path(path)
    checked_header(path, "adapter")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _broken(path, error) from error
    if HEADER_KEY not in metadata:
        raise SqueezeError(
            f'"{path.name}" is a safetensors file but no Squeeze adapter: its header has no "{HEADER_KEY}". '
            "A plain LoRA goes into models/loras and ComfyUI's LoRA loader."
        )
    return _parse(metadata[HEADER_KEY], path)


def _parse(text: str, path: Path) -> AdapterConfig:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise SqueezeError(f'The header of "{path.name}" is not JSON ({error}). Get the file again.') from error
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != FORMAT:
        raise SqueezeError(
            f'"{path.name}" has adapter format {version} and this version reads format {FORMAT}. '
            "Update the pack, or export the adapter again."
        )
    try:
        return AdapterConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        at = f" at {where}" if where else ""
        raise SqueezeError(f'The header of "{path.name}" is wrong{at}: {first["msg"]}.') from error


def _check_tensors(
    given: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], config: AdapterConfig, path: str | Path
) -> None:
    """Names, shapes and dtypes against the config."""
    name = Path(path).name
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in Aggregator(config.dla).state_dict().items()}
    own = {key: value for key, value in given.items() if not key.startswith(LORA_PREFIX)}
    for problem, keys in (
        ("lacks", sorted(expected.keys() - own.keys())),
        ("has the unknown", sorted(own.keys() - expected.keys())),
    ):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise SqueezeError(f'"{name}" {problem} tensor {keys[0]}{more}. Export the adapter again.')
    for key, (dtype, shape) in given.items():
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise SqueezeError(
                f'"{name}" holds {key} as {dtype}; float32, bfloat16 and float16 are accepted. '
                "Export the adapter again."
            )
        if key in expected and shape != expected[key]:
            raise SqueezeError(
                f'"{name}" holds {key} of shape {list(shape)}; its config asks for {list(expected[key])}. '
                "Export the adapter again."
            )
    lora = {key: shape for key, (_, shape) in given.items() if key.startswith(LORA_PREFIX)}
    check_lora(lora, config.dit.width, config.dit.double_blocks, config.dit.single_blocks, config.lora_rank, name)


def _check_finite(key: str, tensor: torch.Tensor, path: str | Path) -> None:
    if not torch.isfinite(tensor).all():
        raise SqueezeError(
            f'"{Path(path).name}" holds NaN or infinite numbers in {key}. The training diverged or the file '
            "is damaged: take an earlier checkpoint, or get the file again."
        )


def _broken(path: str | Path, error: Exception) -> SqueezeError:
    return SqueezeError(f'"{Path(path).name}" cannot be read as safetensors ({error}). Get the file again.')
