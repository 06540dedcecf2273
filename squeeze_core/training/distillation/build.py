"""A config of stage 0 -> the models, the texts and the task: everything loaded, nothing fitted or trained yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch
from PIL import Image

from ...data.config import DescribedSource, ToldSource
from ...data.examples import Walk
from ...data.sources import TOLD_OPENERS, ToldOpener
from ...data.told import PictureFolder, Told, ToldExamples
from ...draws import Draws
from ...errors import SqueezeError
from ...mllm.backbone import Backbone, Prompt
from ...mllm.prompt import check_prompt
from ..build import Place, adapter_config, fixed_samples, flux_models, path_of, trained
from ..config import LoRASettings
from ..flux_task import Models
from . import teacher
from .config import DistillConfig
from .task import DistillTask
from .teacher import T5Words

INSTRUCTION = "Describe picture 1: the subject first, then where it is."


def distill_task(
    config: DistillConfig,
    *,
    places: Mapping[str, Place] = {},
    openers: Mapping[str, ToldOpener] = {},
    teachers: Mapping[str, Callable[[], T5Words]] = {},
) -> DistillTask:
    """Load what a config names. Raises `SqueezeError`, for the texts before the models, which take minutes.

    places, openers: as of `squeeze_task`. teachers: of worlds that `models.text_encoder` (or `flux`) may name.
    """
    from ...mllm.loading import load as load_mllm

    opened = {number: _opened(source, openers) for number, source in enumerate(config.data)}
    models = config.models
    mllm = load_mllm(path_of(models.mllm, "mllm", places), models.mllm_dtype, device="cpu")
    walk = _walk(config, opened, mllm)
    named = models.text_encoder or models.flux
    words = teachers[named]() if named in teachers else teacher.load(named, config.words, config.words_cache)
    vae, clip, transformer = flux_models(config, places, config.hears_clip)
    wide = transformer.config.joint_attention_dim
    if words.width != wide:
        raise SqueezeError(
            f"This T5 says {words.width} numbers a token and FLUX hears {wide}. Give FLUX's own: {teacher.FETCH}"
        )
    adapter = adapter_config(config, transformer, mllm.identity)
    adapter = adapter.model_copy(update={"gate": config.gate, "guidance": config.guidance})
    module = trained(config, transformer, adapter, LoRASettings(rank=0))
    fixed = fixed_samples(config, lambda index: (walk.example(index).prompt, walk.example(index).pictures))
    return DistillTask(config, Models(module, vae, mllm, adapter, tuple(fixed), clip), walk, words)


def _opened(source: ToldSource, openers: Mapping[str, ToldOpener]) -> ToldExamples:
    known = {**TOLD_OPENERS, **openers}
    if isinstance(source, DescribedSource):
        return PictureFolder(source.folder, needed=not source.describe)
    if source.kind not in known:
        raise SqueezeError(f'Nothing here opens texts of the kind "{source.kind}". Take one of {", ".join(known)}.')
    return known[source.kind](source)


def _walk(config: DistillConfig, opened: Mapping[int, ToldExamples], mllm: Backbone) -> Walk[Told]:
    def check(told: Told) -> None:
        check_prompt(Prompt(told.prompt, told.pictures, config.system_prompt, config.tiles))

    sources = []
    for number, source in enumerate(config.data):
        examples = opened[number]
        if isinstance(source, DescribedSource) and source.describe and isinstance(examples, PictureFolder):
            _describe(examples, mllm, config)
        sources.append(examples)
    return Walk(sources, [source.share for source in config.data], Draws(config.seed), check)


def _describe(folder: PictureFolder, mllm: Backbone, config: DistillConfig) -> None:
    """The MLLM writes the words that are missing, where the run will compute."""
    from ...mllm.write_prompt import write_prompt

    if not folder.without_words:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SqueezeError(
            f'{len(folder.without_words)} pictures in "{folder.folder}" have no words yet, which one process '
            "writes. Start the run once without torchrun or accelerate, and stop it when it trains."
        )
    device = torch.device("cpu") if config.on_cpu else torch.accelerator.current_accelerator()
    mllm.model.to(device)

    def write(picture: Image.Image) -> str:
        return write_prompt(mllm, INSTRUCTION, (picture,), "faithful", tiles=config.tiles, device=device)

    folder.describe(write)
    mllm.model.to("cpu")  # its output layer is not needed again
