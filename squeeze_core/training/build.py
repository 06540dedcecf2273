"""A config -> the models, the data and the task: everything loaded, the LoRA put in, nothing trained yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import adapter as adapter_file
from ..adapter import AdapterConfig
from ..data.config import DataSource
from ..data.examples import BrokenExample, Example, Examples, Walk
from ..data.pictures import read_rgb
from ..data.sources import OPENERS, Opener
from ..dla import Aggregator, DLAConfig
from ..draws import Draws
from ..errors import SqueezeError
from ..flux import clip as clip_text
from ..flux import loading, lora
from ..flux.clip import PooledText
from ..flux.model import spec_of
from ..flux.quantized import quantize
from ..mllm.backbone import Backbone, MLLMIdentity, Prompt
from ..mllm.prompt import check_prompt
from .checkpoint import Checkpoints, read_tensors
from .config import TrainConfig
from .squeeze_task import SqueezeTask, Trained
from .state import AVERAGE, WEIGHTS, copy_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from PIL.Image import Image

LORA_NAME = "squeeze"

Place = Callable[[str], Path]  # "flux", "vae" or "mllm" -> where that model lies


def squeeze_task(
    config: TrainConfig, *, places: Mapping[str, Place] = {}, openers: Mapping[str, Opener] = {}
) -> SqueezeTask:
    """Load what a config names. Raises `SqueezeError`, for the data before the models, which take minutes.

    places: worlds of models that a config may name in place of a path. openers: of kinds of data sets besides
    those of `data.sources`, see `open_data`.
    """
    from ..mllm.loading import load as load_mllm

    walk = open_data(config, openers)
    fixed = _fixed_samples(config, walk)
    models = config.models
    mllm = load_mllm(_path(models.mllm, "mllm", places), models.mllm_dtype, device="cpu")
    vae = loading.load_vae(_path(models.vae or models.flux, "vae", places), models.dtype)
    vae = vae.to(memory_format=torch.channels_last)  # convolutions take a third less time on a CPU
    clip = None
    if config.pooled == "clip_l":
        clip = clip_text.load(models.clip or _path(models.flux, "flux", places))
    transformer = loading.load_flux(_path(models.flux, "flux", places), models.dtype)
    quantize(transformer, config.base)
    return new_task(config, transformer, vae, mllm, walk, fixed, clip)


def new_task(
    config: TrainConfig,
    transformer: FluxTransformer2DModel,
    vae: AutoencoderKL,
    mllm: Backbone,
    walk: Walk,
    fixed: Sequence[tuple[str, tuple[Image, ...]]] = (),
    clip: PooledText | None = None,
) -> SqueezeTask:
    """The task on models that are there: the LoRA goes into FLUX, weights are new or those of `config.init`.

    fixed: prompts and references of which pictures are made now and then. clip: for `config.pooled` "clip_l".
    Raises `SqueezeError`.
    """
    adapter = _adapter_config(config, transformer, mllm.identity)
    module = _trained(config, transformer, adapter)
    if config.init is not None:
        _begin_with(module, Path(config.init).expanduser(), config, adapter)
    return SqueezeTask(config, module, vae, mllm, walk, adapter, fixed, clip)


def open_data(config: TrainConfig, openers: Mapping[str, Opener] = {}) -> Walk:
    """The data sets of a config, mixed. Raises `SqueezeError`.

    openers: kind -> what opens a source of that kind, besides those of `data.sources`.
    """
    known = {**OPENERS, **openers}

    def check(example: Example) -> None:
        check_prompt(Prompt(example.prompt, example.references, config.system_prompt, config.tiles))

    sources = [_open(source, known) for source in config.data]
    return Walk(sources, [source.share for source in config.data], Draws(config.seed), check)


def _open(source: DataSource, openers: Mapping[str, Opener]) -> Examples:
    if source.kind not in openers:
        raise SqueezeError(
            f'Nothing here opens data sets of the kind "{source.kind}". Take one of {", ".join(openers)}.'
        )
    return openers[source.kind](source)


def _path(given: str, part: str, places: Mapping[str, Place]) -> Path:
    return places[given](part) if given in places else Path(given)


def _adapter_config(
    config: TrainConfig, transformer: FluxTransformer2DModel, identity: MLLMIdentity
) -> AdapterConfig:
    """What inference will have to know, `trained_by` apart."""
    models = config.models
    dit = spec_of(transformer)
    return AdapterConfig(
        mllm=replace(identity, name=models.mllm_name or Path(models.mllm).name),
        dit=dit.model_copy(update={"name": models.flux_name or Path(models.flux).name}),
        dla=DLAConfig(
            hidden=identity.hidden_size,
            layers=identity.layers + 1,
            context=dit.context,
            **{name: getattr(config.dla, name) for name in type(config.dla).model_fields},
        ),
        system_prompt=config.system_prompt,
        tiles=config.tiles,
        pooled=config.pooled,
        gate=config.gate,
        placement=config.placement,
        guidance=config.inference_guidance,
        lora_rank=config.lora.rank,
        long_side=config.reference_long_side,
    )


def _trained(config: TrainConfig, transformer: FluxTransformer2DModel, adapter: AdapterConfig) -> Trained:
    """FLUX frozen but for a new LoRA, and a new aggregator; both drawn from the seed, float32."""
    transformer.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(Draws(config.seed).integer("initial weights", 0, 2**62))
        aggregator = Aggregator(adapter.dla)
        if config.lora.rank:
            from peft import LoraConfig

            modules = lora.attention_modules(adapter.dit.double_blocks, adapter.dit.single_blocks)
            alpha: Any = config.lora.alpha or config.lora.rank  # a float is allowed, its annotation is not
            transformer.add_adapter(
                LoraConfig(r=config.lora.rank, lora_alpha=alpha, target_modules=modules), LORA_NAME
            )
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return Trained(transformer, aggregator)


def _begin_with(module: Trained, path: Path, config: TrainConfig, adapter: AdapterConfig) -> None:
    """Weights of an earlier run, or of an adapter file, in place of the new ones. Raises `SqueezeError`."""
    into = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if path.is_dir():
        newest = Checkpoints(path / "checkpoints").latest()
        if newest is None:
            raise SqueezeError(
                f'The run "{path}" has no checkpoint to begin with. Train it first, or set another init.'
            )
        copy_weights(into, read_tensors(newest, AVERAGE) or read_tensors(newest, WEIGHTS), f'init "{newest}"')
        return
    given = adapter_file.load(path)
    given.config.check_mllm(adapter.mllm)
    given.config.check_dit(adapter.dit)
    scale = (config.lora.alpha or config.lora.rank) / max(1, config.lora.rank)
    weights = {f"aggregator.{name}": tensor for name, tensor in given.aggregator.state_dict().items()}
    for key, tensor in given.lora.items():
        # The file has alpha / rank multiplied into B; here peft multiplies.
        weights[_trained_name(key)] = tensor.float() / scale if ".lora_B." in key else tensor.float()
    copy_weights(into, {name: tensor.float() for name, tensor in weights.items()}, f'init "{path}"')


def _trained_name(key: str) -> str:
    """An adapter file's LoRA key -> the parameter's name in `Trained`."""
    return key.removesuffix(".weight") + f".{LORA_NAME}.weight"


def _fixed_samples(config: TrainConfig, walk: Walk) -> list[tuple[str, tuple[Image, ...]]]:
    if not config.sample_every:
        return []
    sampling = config.sampling
    if not sampling.prompts:
        shown: Sequence[Example] = [walk.example(index) for index in range(sampling.count)]
        return [(example.prompt, example.references) for example in shown]
    images = sampling.images or ((),) * len(sampling.prompts)
    try:
        pictures = [tuple(read_rgb(Path(name).expanduser()) for name in names) for names in images]
    except BrokenExample as error:
        raise SqueezeError(f"A picture of sampling.images cannot be read: {error}.") from error
    return list(zip(sampling.prompts, pictures))
