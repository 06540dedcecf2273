"""diffusers' first-block cache under the gate, on the toy world."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.gate import Gate
from squeeze_core.generation import GenerationSettings
from squeeze_core.pipeline import SqueezePipeline

PROMPT = "the star of picture 1 on a beach"
SMALL = GenerationSettings(height=64, width=64, steps=14, long_side=48, gate=Gate(0.95, 0.7))
FIRST = [0, 3, 8]  # of early, middle and late with these


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return SqueezePipeline.from_toy_world(toyworld.load(tmp_path_factory.mktemp("toyworld") / "world", 1))


def computed(pipeline, settings) -> tuple[torch.Tensor, list[int]]:
    """Latents, and the steps whose blocks behind the first all ran."""
    ran, step = [], 0

    def stepped(what, done, total):
        nonlocal step
        if what == "sample":
            step = done

    processor = pipeline.transformer.single_transformer_blocks[-1].attn
    handle = processor.to_q.register_forward_pre_hook(lambda *_: ran.append(step))
    try:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
        latents = pipeline.generate(PROMPT, [picture], settings, progress=stepped).latents
    finally:
        handle.remove()
    return latents, sorted(set(ran))


def test_the_stages_are_where_these_tests_think(pipeline):
    sigmas = pipeline.levels(SMALL)
    stages = [SMALL.gate.stage(float(sigma)) for sigma in sigmas[:-1]]
    assert [0, *(n for n in range(1, len(stages)) if stages[n] != stages[n - 1])] == FIRST


@pytest.mark.parametrize("late", ["drop", "keep"])
@pytest.mark.parametrize("true_cfg", [1.0, 2.5])
def test_a_cache_skips_steps_but_never_the_first_of_a_stage(pipeline, late, true_cfg):
    settings = replace(SMALL, gate=replace(SMALL.gate, late=late), true_cfg=true_cfg)
    plain, every = computed(pipeline, settings)
    cached, ran = computed(pipeline, replace(settings, cache=10.0))
    assert every == list(range(14)) and ran == FIRST
    assert torch.isfinite(cached).all() and not torch.equal(cached, plain)
    again, all_ran = computed(pipeline, settings)
    assert torch.equal(again, plain) and all_ran == every  # nothing is left behind


def test_a_threshold_that_nothing_falls_below_changes_not_a_bit(pipeline):
    assert torch.equal(computed(pipeline, replace(SMALL, cache=1e-9))[0], computed(pipeline, SMALL)[0])


def test_a_cache_that_the_user_enabled_works_and_starts_anew_each_time(pipeline):
    from diffusers import FirstBlockCacheConfig

    pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=10.0))
    try:
        one, ran = computed(pipeline, SMALL)
        other, also = computed(pipeline, SMALL)
        assert ran == also == FIRST and torch.equal(one, other)
        with pytest.raises(SqueezeError, match="has a cache enabled already"):
            computed(pipeline, replace(SMALL, cache=0.1))
        assert pipeline.transformer.is_cache_enabled
    finally:
        pipeline.transformer.disable_cache()


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(SqueezeError, match=r"cache is .*give 0 for none"):
        replace(SMALL, cache=threshold)
