"""A config -> the MLLM with its LoRA, the scenes and the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ...data.examples import Walk
from ...data.sources.music import Music
from ...draws import Draws
from ...errors import SqueezeError
from ...mllm.family import TransformersBackbone
from ...planning.adapter import PlannerConfig
from ..build import Place, path_of
from .config import PlannerTraining
from .task import PlannerTask, attach, check


def planner_task(config: PlannerTraining, *, places: Mapping[str, Place] = {}) -> PlannerTask:
    """Load what a config names. Raises `SqueezeError`, for the scenes before the model."""
    from ...mllm.loading import load

    sources = [Music(source.folder, fewest=source.fewest, most=source.most) for source in config.data]
    walk = Walk(sources, [source.share for source in config.data], Draws(config.seed), check)
    models = config.models
    backbone = load(path_of(models.mllm, "mllm", places), models.mllm_dtype, device="cpu")
    if not isinstance(backbone, TransformersBackbone) or not backbone.can_generate:
        raise SqueezeError(f'"{models.mllm}" has no output layer, so it cannot write a plan. Give a whole folder.')
    identity = replace(backbone.identity, name=models.mllm_name or Path(models.mllm).name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(Draws(config.seed).integer("initial weights", 0, 2**62))
        attach(backbone, config)
    return PlannerTask(
        config, backbone, walk, PlannerConfig(mllm=identity, rank=config.lora.rank, tiles=config.tiles)
    )
