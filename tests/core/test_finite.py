"""NaN and infinite numbers are refused where they leave a model, by the model's name; no black picture is made."""

import numpy as np
import pytest
import torch
from PIL import Image

from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.gate import Gate
from squeeze_core.generation import GenerationSettings
from squeeze_core.pipeline import SqueezePipeline

SMALL = GenerationSettings(height=64, width=64, steps=2, long_side=48, gate=Gate(0.95, 0.5))
UNTRAINED = 1  # a seed of the toy world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toyworld.build(tmp_path_factory.mktemp("toyworld") / "world", UNTRAINED).folder


@pytest.fixture
def load(folder):
    return lambda **options: SqueezePipeline.from_toy_world(toyworld.load(folder, UNTRAINED), **options)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def spoil(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(float("nan"))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (lambda pipe: pipe.mllm.model, "The MLLM .* gave states .*bf16"),
        (lambda pipe: pipe.dla, "aggregator gave a context .*adapter's file"),
        (lambda pipe: pipe.vae.encoder, "The VAE gave latents of a reference .*another VAE"),
        (lambda pipe: pipe.transformer, "FLUX .* gave latents .*less strength"),
        (lambda pipe: pipe.vae.decoder, "The VAE gave pixels .*another VAE"),
    ],
    ids=["mllm", "dla", "vae encoder", "flux", "vae decoder"],
)
def test_a_model_that_gives_nan_is_named_with_what_to_do(load, part, words):
    pipe = load()
    spoil(part(pipe))
    with pytest.raises(SqueezeError, match=words):
        pipe.generate("a star", [picture()], SMALL)


def test_an_absurd_lora_strength_is_refused_and_not_painted_black(load):
    with pytest.raises(SqueezeError, match="less strength"):
        load(strength=1e20).generate("a star", [picture()], SMALL)
