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
from .config import LoRASettings, StageConfig, TrainConfig
from .flux_task import Models, Trained
from .planned import planned
from .squeeze_task import SqueezeTask
from .state import AVERAGE, WEIGHTS, copy_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from PIL.Image import Image

LORA_NAME = "squeeze"

Fixed = tuple[str, tuple["Image", ...]]  # a prompt and its references
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
    fixed = fixed_samples(config, lambda index: _shown(walk.example(index)))
    mllm = load_mllm(path_of(config.models.mllm, "mllm", places), config.models.mllm_dtype, device="cpu")
    vae, clip, transformer = flux_models(config, places, config.pooled == "clip_l")
    return new_task(config, transformer, vae, mllm, walk, fixed, clip)


def flux_models(
    config: StageConfig, places: Mapping[str, Place], hears_clip: bool
) -> tuple[AutoencoderKL, PooledText | None, FluxTransformer2DModel]:
    """VAE, CLIP if it is heard, and FLUX on the config's base, all frozen. Raises `SqueezeError`."""
    models = config.models
    vae = loading.load_vae(path_of(models.vae or models.flux, "vae", places), models.dtype)
    vae = vae.to(memory_format=torch.channels_last)  # convolutions take a third less time on a CPU
    clip = clip_text.load(models.clip or path_of(models.flux, "flux", places)) if hears_clip else None
    transformer = loading.load_flux(path_of(models.flux, "flux", places), models.dtype)
    quantize(transformer, config.base)
    return vae, clip, transformer


def new_task(
    config: TrainConfig,
    transformer: FluxTransformer2DModel,
    vae: AutoencoderKL,
    mllm: Backbone,
    walk: Walk[Example],
    fixed: Sequence[Fixed] = (),
    clip: PooledText | None = None,
) -> SqueezeTask:
    """The task on models that are there: the LoRA goes into FLUX, weights are new or those of `config.init`.

    fixed: prompts and references of which pictures are made now and then. clip: for `config.pooled` "clip_l".
    Raises `SqueezeError`.
    """
    adapter = adapter_config(config, transformer, mllm.identity).model_copy(
        update={
            "gate": config.gate,
            "placement": config.placement,
            "guidance": config.inference_guidance,
            "lora_rank": config.lora.rank,
            "long_side": config.reference_long_side,
        }
    )
    module = trained(config, transformer, adapter, config.lora)
    return SqueezeTask(config, Models(module, vae, mllm, adapter, tuple(fixed), clip), walk)


def open_data(config: TrainConfig, openers: Mapping[str, Opener] = {}) -> Walk[Example]:
    """The data sets of a config, mixed. Raises `SqueezeError`.

    openers: kind -> what opens a source of that kind, besides those of `data.sources`.
    """
    known = {**OPENERS, **openers}

    def check(example: Example) -> None:
        plan = None
        if config.plans:
            flags = {name: getattr(config, name) for name in ("separate_encodes", "layout", "plan_text")}
            plan = planned(example, **flags)
        said = ((example.prompt, example.references),) if plan is None else plan.texts
        for text, pictures in said:
            check_prompt(Prompt(text, pictures, config.system_prompt, config.tiles))

    sources = [_open(source, known) for source in config.data]
    return Walk(sources, [source.share for source in config.data], Draws(config.seed), check)


def _open(source: DataSource, openers: Mapping[str, Opener]) -> Examples:
    if source.kind not in openers:
        raise SqueezeError(
            f'Nothing here opens data sets of the kind "{source.kind}". Take one of {", ".join(openers)}.'
        )
    return openers[source.kind](source)


def _shown(example: Example) -> Fixed:
    return example.prompt, example.references


def path_of(given: str, part: str, places: Mapping[str, Place]) -> Path:
    return places[given](part) if given in places else Path(given)


def adapter_config(
    config: StageConfig, transformer: FluxTransformer2DModel, identity: MLLMIdentity
) -> AdapterConfig:
    """What inference will have to know, `trained_by` and what is the stage's own apart."""
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
        lora_rank=0,
    )


def trained(
    config: StageConfig, transformer: FluxTransformer2DModel, adapter: AdapterConfig, settings: LoRASettings
) -> Trained:
    """FLUX frozen but for a LoRA, and an aggregator: new, drawn from the seed, or those of `init`; float32."""
    transformer.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(Draws(config.seed).integer("initial weights", 0, 2**62))
        aggregator = Aggregator(adapter.dla)
        if settings.rank:
            from peft import LoraConfig

            modules = lora.attention_modules(adapter.dit.double_blocks, adapter.dit.single_blocks)
            alpha: Any = settings.alpha or settings.rank  # a float is allowed, its annotation is not
            transformer.add_adapter(
                LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=modules), LORA_NAME
            )
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    module = Trained(transformer, aggregator)
    if config.init is not None:
        _begin_with(module, Path(config.init).expanduser(), settings, adapter)
    return module


def _begin_with(module: Trained, path: Path, settings: LoRASettings, adapter: AdapterConfig) -> None:
    """Weights of an earlier run, or of an adapter file, in place of the new ones; the LoRA stays new where there is
    none in them. Raises `SqueezeError`."""
    into = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}

    def put(weights: Mapping[str, torch.Tensor]) -> None:
        without = not any(LORA_NAME in name for name in weights)
        names = [name for name in into if not (without and LORA_NAME in name)]
        copy_weights({name: into[name] for name in names}, weights, f'init "{path}"')

    if path.is_dir():
        newest = Checkpoints(path / "checkpoints").latest()
        if newest is None:
            raise SqueezeError(
                f'The run "{path}" has no checkpoint to begin with. Train it first, or set another init.'
            )
        put(read_tensors(newest, AVERAGE) or read_tensors(newest, WEIGHTS))
        return
    given = adapter_file.load(path)
    given.config.check_mllm(adapter.mllm)
    given.config.check_dit(adapter.dit)
    scale = (settings.alpha or settings.rank) / max(1, settings.rank)
    weights = {f"aggregator.{name}": tensor for name, tensor in given.aggregator.state_dict().items()}
    for key, tensor in given.lora.items():
        # The file has alpha / rank multiplied into B; here peft multiplies.
        weights[_trained_name(key)] = tensor.float() / scale if ".lora_B." in key else tensor.float()
    put({name: tensor.float() for name, tensor in weights.items()})


def _trained_name(key: str) -> str:
    """An adapter file's LoRA key -> the parameter's name in `Trained`."""
    return key.removesuffix(".weight") + f".{LORA_NAME}.weight"


def fixed_samples(config: StageConfig, first: Callable[[int], Fixed]) -> list[Fixed]:
    """Of which pictures are made now and then. first: those of the data, for a config that names none."""
    if not config.sample_every:
        return []
    sampling = config.sampling
    if not sampling.prompts:
        return [first(index) for index in range(sampling.count)]
    images = sampling.images or ((),) * len(sampling.prompts)
    try:
        pictures = [tuple(read_rgb(Path(name).expanduser()) for name in names) for names in images]
    except BrokenExample as error:
        raise SqueezeError(f"A picture of sampling.images cannot be read: {error}.") from error
    return list(zip(sampling.prompts, pictures))
