"""X2I's aligner in ComfyUI: asked as it was trained, without a word of the user; the headless latents."""

import importlib.util
import logging
from pathlib import Path

import pytest
import torch
from test_same_latents import assert_same, outputs, tensor

from squeeze_core import x2i
from squeeze_core.adapter import load as load_adapter
from squeeze_core.gate import Gate
from squeeze_core.pipeline import GenerationSettings, SqueezePipeline
from squeeze_core.toyworld import adapter as toy_adapter
from squeeze_core.toyworld import load
from squeeze_core.toyworld.world import build

PROMPT, SIDE, STEPS = "a photo of the small toy, on the left, on a beach", 64, 4
GATE = Gate(0.95, 0.85, "keep")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The toy world in a cache folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield build()


@pytest.fixture(scope="module")
def converted(world, tmp_path_factory):
    """A random aligner for the toy world's MLLM and FLUX, through X2I's file and `squeeze convert`'s code."""
    source = Path(__file__).parent.parent / "x2i_files.py"
    specification = importlib.util.spec_from_file_location("squeeze_test_x2i_files", source)
    files = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(files)
    config = toy_adapter.config("0" * 16)
    folder = tmp_path_factory.mktemp("aligner")
    pooled = load().transformer.config.pooled_projection_dim
    state = files.random_state(config.dla.layers, config.dla.hidden, context=config.dla.context, pooled=pooled)
    torch.save({f"module.{key}": value for key, value in state.items()}, folder / "proj.pt")
    x2i.convert(folder / "proj.pt", world.mllm, folder / "x2i.safetensors", dit=config.dit)
    return folder / "x2i.safetensors"


@pytest.fixture(scope="module")
def toy(world, pack):
    return outputs(pack("nodes.toyworld").ToyWorldNode)


@pytest.fixture
def loaded(toy, pack, converted, monkeypatch):
    """Load Squeeze Adapter at strength 0: of no LoRA, and no error."""
    monkeypatch.setattr(pack("nodes.folders"), "adapter_path", lambda name: converted)
    return outputs(pack("nodes.dla").LoadAdapter, toy[0], converted.name, 0.0)


def picture():
    from PIL import Image

    return Image.radial_gradient("L").resize((70, 50)).convert("RGB")


def encoded(pack, toy, **more):
    named = {"picture_1": tensor(picture())}
    return outputs(pack("nodes.mllm").Encode, toy[2], PROMPT, images=named, **more)[0]


def test_nodes_and_pipeline_give_the_same_latents(pack, toy, loaded, world, converted):
    import comfy.sample
    import comfy.samplers

    model, dla = loaded
    states = encoded(pack, toy, for_adapter=dla)
    assert states.tokens == 512
    positive, negative, weights = outputs(pack("nodes.dla").Aggregate, states, dla, "all", "all")
    assert positive[0][1]["pooled_output"].abs().max() > 0 and positive[0][1]["guidance"] == 3.5
    references, _ = outputs(pack("nodes.references").ReferenceTokens, toy[1], tensor(picture()), 64, "auto")
    gate = pack("nodes.gate").TimestepGate
    (gated, _) = outputs(gate, positive, GATE.tau_1, GATE.tau_2, GATE.late, 3.5, references=references)
    (sigmas,) = outputs(pack("nodes.sigmas").Sigmas, model, STEPS, "cosine", 1.0)
    empty = torch.zeros(1, 16, SIDE // 8, SIDE // 8)
    noise = comfy.sample.prepare_noise(empty, 3)
    sampler = comfy.samplers.sampler_object("euler")
    theirs = comfy.sample.sample_custom(
        model, noise, 1.0, sampler, sigmas, gated, negative, empty, disable_pbar=True, seed=3
    )
    # The toy world's MODEL has its LoRA, as UNO's is in FLUX by another loader.
    base, adapter = SqueezePipeline.from_toy_world(load()), load_adapter(converted)
    pipeline = SqueezePipeline(base.transformer, base.vae, base.mllm, adapter.aggregator, adapter.config)
    settings = GenerationSettings(height=SIDE, width=SIDE, steps=STEPS, seed=3, gate=GATE, long_side=64)
    ours = pipeline.generate(PROMPT, [picture()], settings)
    assert ours.context_tokens == 512
    assert_same(ours.latents, theirs)
    assert outputs(pack("nodes.plots").ShowLayers, weights)[0].shape[0] == 1


def test_states_asked_the_plain_way_are_warned_of_and_the_adapters_own_are_not(pack, toy, loaded, caplog):
    aggregate = pack("nodes.dla").Aggregate
    with caplog.at_level(logging.WARNING):
        outputs(aggregate, encoded(pack, toy, for_adapter=loaded[1]), loaded[1], "all", "all")
        assert not caplog.records
        outputs(aggregate, encoded(pack, toy), loaded[1], "all", "all")
    (record,) = caplog.records
    assert "pad_to is 0, and the adapter was trained with 512" in record.getMessage()
    assert "for_adapter" in record.getMessage()


def test_an_mllm_that_is_not_the_adapters_is_refused_before_it_works(pack, loaded, folders):
    other = pack("nodes.hosting").load_mllm(folders["qwen2.5-vl"])
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match="Load the one that the adapter names"):
        outputs(pack("nodes.mllm").Encode, other, PROMPT, for_adapter=loaded[1])


def test_the_aligner_needs_no_clip_and_refuses_one(pack, toy, loaded):
    clip = [[torch.zeros(1, 77, 768), {"pooled_output": torch.zeros(1, 768)}]]
    states = encoded(pack, toy, for_adapter=loaded[1])
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match="makes its own pooled vector"):
        outputs(pack("nodes.dla").Aggregate, states, loaded[1], "all", "all", clip)
