"""Tasks of every stage on random weights, of the real sizes or tiny: what `training.py` measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.examples import Example, Walk
from ..data.told import Told
from ..draws import Draws
from ..flux.quantized import quantize
from ..mllm.backbone import MLLMIdentity, Prompt
from ..mllm.internvl import InternVL
from ..training.build import adapter_config, new_task, trained
from ..training.config import LoRASettings, StageConfig, TrainConfig
from ..training.config_files import parse_config
from ..training.distillation.config import DistillConfig
from ..training.distillation.task import DistillTask
from ..training.distillation.teacher import Said
from ..training.flux_task import FluxTask, Models
from ..training.latents import Picture
from ..training.squeeze_task import SqueezeTask

SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "flux": {"guidance_embeds": True},  # FLUX.1-dev is diffusers' default
        "text": {
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "vocab_size": 151674,
        },
        "vision": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096},
        "rank": 512,
        "resolution": 512,
    },
    "tiny": {
        "flux": {
            "guidance_embeds": True,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_attention_heads": 1,
            "joint_attention_dim": 64,
        },
        "text": {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 128,
            "vocab_size": 512,
        },
        "vision": {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2},
        "rank": 4,
        "resolution": 128,
    },
}
PICTURE_TOKEN = 500
WORDS = range(40, 91)  # tokens of a caption


class Untokenized(InternVL):
    """InternVL of random weights: a prompt becomes as many random tokens as its text says."""

    def inputs(self, prompt: Prompt, device: torch.device | str) -> dict[str, torch.Tensor]:
        ids = torch.arange(int(prompt.text)) % 400
        if not prompt.images:
            return {"input_ids": ids[None].to(device)}
        side = self.config.vision_config.image_size[0]
        pictures = torch.full((self.tokens_per_tile * len(prompt.images),), PICTURE_TOKEN)
        pixels = torch.zeros(len(prompt.images), 3, side, side, dtype=self.model.dtype)
        return {"input_ids": torch.cat([pictures, ids])[None].to(device), "pixel_values": pixels.to(device)}

    def _padding(self) -> int:
        return 0


class Noise:
    """Pairs of noise; the text of a prompt is its number of tokens."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __len__(self) -> int:
        return 1024

    def __getitem__(self, number: int) -> Example:
        rng = np.random.default_rng(number)
        pictures = rng.integers(0, 255, (2, self.side, self.side, 3), np.uint8)
        reference, target = (Image.fromarray(each) for each in pictures)
        return Example(str(rng.choice(WORDS)), target, (reference,), str(number))

    def identity(self) -> str:
        return "noise"


class ToldNoise:
    """Texts, and pictures of noise with words, in turn; the text of a prompt is its number of tokens."""

    def __init__(self, side: int) -> None:
        self.pairs = Noise(side)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> Told:
        example = self.pairs[number]
        return Told(example.prompt, example.prompt, example.name, example.references[: number % 2])

    def identity(self) -> str:
        return "noise"


class SaidAlready:
    """In T5's place, with states as its cache has them."""

    def __init__(self, tokens: int, width: int, device: torch.device) -> None:
        self.model, self.width, self.identity = torch.nn.Identity(), width, "noise"
        self._said = Said(torch.zeros(tokens, width, device=device), ())

    def encode(self, texts: Any) -> list[Said]:
        return [self._said for _ in texts]


def random_task(size: str, stage: int, device: torch.device, **changes: Any) -> FluxTask:
    """The task of a stage with random weights, bf16 on a GPU, made where they will be computed with.

    changes: settings of `TrainConfig`, or of `DistillConfig` for stage 0. Raises `SqueezeError`.
    """
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import AutoConfig, InternVLForConditionalGeneration

    from ..toyworld import vae as toy_vae

    shape = SIZES[size]
    config = parse_config(_values(shape, stage) | changes)
    with device, _default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32):
        flux = FluxTransformer2DModel(**shape["flux"])
        settings = AutoConfig.for_model(
            "internvl",
            text_config={"model_type": "qwen2", "max_position_embeddings": 4096, **shape["text"]},
            vision_config={"model_type": "internvl_vision", **shape["vision"]},
            image_token_id=PICTURE_TOKEN,
        )
        model = InternVLForConditionalGeneration(settings)
    vae = AutoencoderKL(**toy_vae.CONFIG)  # small, because real runs keep the latents
    for each in (flux, model, vae):
        each.eval().requires_grad_(False)
    identity = MLLMIdentity("internvl", shape["text"]["hidden_size"], shape["text"]["num_hidden_layers"], "0" * 16)
    mllm = Untokenized(model, None, None, identity)
    assert isinstance(config, StageConfig)
    quantize(flux, config.base)
    if isinstance(config, TrainConfig):
        return new_task(config, flux, vae, mllm, Walk([Noise(config.resolution)], [1], Draws(0)))
    assert isinstance(config, DistillConfig)
    adapter = adapter_config(config, flux, identity)
    module = trained(config, flux, adapter, LoRASettings(rank=0))
    words = SaidAlready(config.words, adapter.dit.context, device)
    told = Walk([ToldNoise(config.resolution)], [1], Draws(0))
    return DistillTask(config, Models(module, vae, mllm, adapter), told, words)


def ready(task: FluxTask, sample: Any) -> Any:
    """A sample with the latents of its pictures, as the cache has them after the first turn over the data."""
    if not isinstance(task, SqueezeTask):
        return sample

    def known(picture: Picture) -> Picture:
        return replace(picture, latents=task.latents.latents(picture, task.device).cpu())

    return replace(sample, target=known(sample.target), references=tuple(map(known, sample.references)))


def _values(shape: dict[str, Any], stage: int) -> dict[str, Any]:
    """Of the config. Stage 0's teacher is heard without CLIP, which is nothing beside it."""
    own: dict[str, Any] = {
        "vae_references": stage == 2,
        "lora": {"rank": shape["rank"]},
        "reference_long_side": shape["resolution"],
    }
    if stage == 0:
        own = {"stage": 0, "teacher_pooled": "zeros"}
    return {
        "models": {"flux": "random", "mllm": "random"},
        "data": [{"kind": "toyworld"}],
        "steps": 1,
        "batch_size": 1,
        "resolution": shape["resolution"],
        "precision": "bf16",
        **own,
    }


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
