"""Headless generation on the toy world: real architectures, tiny."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from squeeze_core import toyworld
from squeeze_core.adapter import AdapterConfig
from squeeze_core.errors import SqueezeError
from squeeze_core.flux.conditioning import Conditioning
from squeeze_core.flux.model import spec_of, velocity
from squeeze_core.flux.sampling import seeded_noise
from squeeze_core.flux.tokens import positions, to_latents, to_tokens
from squeeze_core.gate import Gate, Stage
from squeeze_core.generation import GenerationSettings
from squeeze_core.mllm import Prompt
from squeeze_core.offload import visiting
from squeeze_core.pipeline import SqueezePipeline

PROMPT = "the star of picture 1 on a beach"
SMALL = GenerationSettings(height=64, width=96, steps=4, long_side=48, gate=Gate(0.95, 0.5))


UNTRAINED = 1  # a seed of the toy world


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of untrained weights, which answer to everything, the pooled vector too."""
    return toyworld.build(tmp_path_factory.mktemp("toyworld") / "world", UNTRAINED).folder


@pytest.fixture(scope="module")
def pipeline(folder):
    return SqueezePipeline.from_toy_world(toyworld.load(folder, UNTRAINED))


def picture(seed: int = 0, size: tuple[int, int] = (40, 60)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def latents(pipeline, settings=SMALL, prompt=PROMPT, images=None, **options) -> torch.Tensor:
    images = [picture()] if images is None else images
    return pipeline.generate(prompt, images, settings, **options).latents


def calls(monkeypatch, owner, name: str) -> list:
    """Count the calls of a method, which still does its work."""
    seen, method = [], getattr(owner, name)

    def counted(*args, **kwargs):
        seen.append(args)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return seen


def test_a_prompt_and_a_picture_become_a_picture(pipeline):
    result = pipeline.generate(PROMPT, [picture()], SMALL)
    assert result.latents.shape == (1, 16, 8, 12) and torch.isfinite(result.latents).all()
    assert [image.size for image in result.images] == [(96, 64)]
    assert result.references.encoded[0].shape == (1, 32, 48, 3)
    assert result.references.placement == pipeline.config.placement == "uxo"
    assert result.sigmas[0] == 1 and result.sigmas[-1] == 0
    assert result.stages == [Stage.EARLY, Stage.MIDDLE, Stage.MIDDLE, Stage.LATE]
    assert result.weights.text.shape == (7,)


def test_a_seed_decides_the_picture(pipeline):
    first = latents(pipeline)
    assert torch.equal(latents(pipeline), first)
    assert not torch.allclose(latents(pipeline, replace(SMALL, seed=1)), first, atol=0.1)


def test_the_global_random_numbers_are_left_alone(pipeline):
    before = torch.get_rng_state()
    latents(pipeline, replace(SMALL, seed=5))
    assert torch.equal(torch.get_rng_state(), before)


def test_only_another_prompt_or_picture_runs_the_mllm_again(folder, monkeypatch):
    pipeline = SqueezePipeline.from_toy_world(toyworld.load(folder, UNTRAINED))
    reads = calls(monkeypatch, pipeline.mllm, "encode_many")
    encodes = calls(monkeypatch, pipeline.vae, "encode")
    latents(pipeline)
    for change in (
        {"seed": 9},
        {"gate": Gate(0.9, 0.7, "keep")},
        {"steps": 2},
        {"curve": "linear"},
        {"guidance": 4.0},
        {"true_cfg": 2.0},
        {"text_layers": "0-2"},
        {"image_layers": "none"},
        {"placement": "index"},
    ):
        latents(pipeline, replace(SMALL, **change))
    assert len(reads) == len(encodes) == 1
    latents(pipeline, prompt="another prompt")
    latents(pipeline, images=[picture(1)])
    latents(pipeline, replace(SMALL, system_prompt="Describe."))
    assert (len(reads), len(encodes)) == (4, 2)


def test_remembered_states_are_those_of_a_fresh_run(folder, pipeline):
    prompt = Prompt(PROMPT, (picture(3),))
    pipeline.encode(prompt)
    kept = pipeline.encode(prompt)
    fresh = toyworld.load(folder, UNTRAINED).mllm.encode(prompt)
    assert torch.equal(kept.states, fresh.states) and torch.equal(kept.image_mask, fresh.image_mask)


def test_mllm_only_never_looks_at_the_references(pipeline):
    settings = replace(SMALL, gate=Gate(0, 0))
    one = latents(pipeline, settings, mllm_images=[picture()])
    other = latents(pipeline, settings, images=[picture(1)], mllm_images=[picture()])
    assert torch.equal(one, other)


def test_vae_only_never_hears_the_prompt(pipeline):
    settings = replace(SMALL, gate=Gate(1.1, 1.1))
    assert torch.equal(latents(pipeline, settings), latents(pipeline, settings, prompt="something else"))
    assert not torch.equal(latents(pipeline, settings), latents(pipeline, settings, images=[picture(1)]))


def test_tokens_that_a_stage_does_not_hear_are_not_there(pipeline, monkeypatch):
    """A gated step without references costs what a plain FLUX step costs."""
    sizes = []

    def record(module, args, kwargs):
        sizes.append((kwargs["encoder_hidden_states"].shape[1], kwargs["hidden_states"].shape[1]))

    handle = pipeline.transformer.register_forward_pre_hook(record, with_kwargs=True)
    try:
        result = pipeline.generate(PROMPT, [picture()], SMALL)
        target, reference, context = 4 * 6, 2 * 3, result.context_tokens
        assert sizes == [
            (context, target),
            (context, target + reference),
            (context, target + reference),
            (1, target + reference),
        ]
        for late, tokens in (("zero", context), ("keep", context)):
            sizes.clear()
            latents(pipeline, replace(SMALL, gate=Gate(0.95, 0.5, late)))
            assert sizes[-1] == (tokens, target + reference)
    finally:
        handle.remove()


def test_without_references_the_prompt_is_heard_to_the_end(pipeline):
    result = pipeline.generate(PROMPT, (), SMALL)
    assert set(result.stages) == {Stage.EARLY}
    assert torch.equal(result.latents, latents(pipeline, replace(SMALL, gate=Gate(0, 0)), images=()))


def test_a_batch_is_its_pictures_one_by_one(pipeline):
    noise = seeded_noise(0, 2, 16, 64, 96)
    both = latents(pipeline, replace(SMALL, batch=2))
    for i in range(2):
        alone = latents(pipeline, noise=noise[i : i + 1])
        assert (both[i : i + 1] - alone).abs().max() < 1e-4


def test_what_the_mask_leaves_out_cannot_be_seen(pipeline):
    settings = replace(SMALL, gate=Gate(1.1, 1.1))
    area = np.zeros((40, 60), dtype=np.uint8)
    area[5:30, 5:40] = 255
    other = np.array(picture(1))
    other[area > 0] = np.array(picture())[area > 0]
    masks = [Image.fromarray(area)]
    shown = latents(pipeline, settings, masks=masks)
    assert torch.equal(shown, latents(pipeline, settings, images=[Image.fromarray(other)], masks=masks))
    assert not torch.equal(shown, latents(pipeline, settings))


def test_guidance_and_placement_come_from_the_adapter_unless_given(pipeline):
    own = pipeline.config
    same = replace(SMALL, guidance=own.guidance, placement=own.placement)
    assert torch.equal(latents(pipeline, same), latents(pipeline))
    for change in ({"guidance": own.guidance + 1}, {"placement": "offset"}):
        assert not torch.equal(latents(pipeline, replace(SMALL, **change)), latents(pipeline))


def test_true_cfg_drives_away_from_the_null_context(pipeline):
    """One step by hand: x = noise - (v_null + s (v - v_null)), in scaled latents."""
    settings = replace(SMALL, steps=1, true_cfg=3.0, gate=Gate(0, 0))
    context, _ = pipeline.aggregate(pipeline.encode(Prompt(PROMPT, (picture(),))))
    noise, sigma = seeded_noise(0, 1, 16, 64, 96), torch.tensor(1.0)
    pooled = torch.zeros(1, 768)
    with torch.no_grad():
        towards = velocity(pipeline.transformer, noise, sigma, Conditioning(context[None], pooled, 2.5))
        away = velocity(pipeline.transformer, noise, sigma, Conditioning(torch.zeros(1, 1, 256), pooled, 2.5))
    by_hand = (noise - (away + 3 * (towards - away))) / 0.3611 + 0.1159
    assert (latents(pipeline, settings) - by_hand).abs().max() < 1e-4


def test_given_sigmas_replace_the_curve(pipeline):
    levels = pipeline.generate(PROMPT, (), replace(SMALL, curve="raised_cosine")).sigmas
    assert torch.equal(latents(pipeline, sigmas=levels), latents(pipeline, replace(SMALL, curve="raised_cosine")))


@pytest.mark.parametrize(
    ("placement", "starts"),
    [
        ("uxo", [(0, 4, 6), (0, 7, 8)]),
        ("index", [(1, 0, 0), (2, 0, 0)]),
        ("offset", [(1, 0, 0), (1, 0, 2)]),
    ],
)
def test_references_stand_where_their_placement_says(placement, starts):
    ids = positions((4, 6), [(3, 2), (5, 1)], placement)
    assert ids.dtype == torch.float32 and ids.shape == (24 + 6 + 5, 3)
    assert ids[0].tolist() == [0, 0, 0] and ids[23].tolist() == [0, 3, 5]
    assert [tuple(ids[24].tolist()), tuple(ids[30].tolist())] == starts
    assert (ids[29] - ids[24]).tolist() == [0, 2, 1]


def test_tokens_and_latents_are_two_views_of_one_picture():
    image = torch.randn(2, 16, 6, 10)
    tokens = to_tokens(image)
    assert tokens.shape == (2, 15, 64)
    assert torch.equal(tokens[0, 6, :4], image[0, 0, 2:4, 2:4].flatten())
    assert torch.equal(to_latents(tokens, rows=3), image)


def test_a_fused_lora_is_the_separate_one(folder):
    results = {}
    for name, options in {
        "fused": {"fuse": True},
        "separate": {"fuse": False},
        "half": {"strength": 0.5},
        "none": {"strength": 0},
    }.items():
        results[name] = latents(SqueezePipeline.from_toy_world(toyworld.load(folder, UNTRAINED), **options))
    scale = results["fused"].abs().max()
    assert (results["fused"] - results["separate"]).abs().max() < 1e-5 * scale
    for name in ("half", "none"):
        assert (results[name] - results["fused"]).abs().max() > 1e-2 * scale


def test_progress_is_told_and_raising_in_it_stops_everything(folder):
    pipeline = SqueezePipeline.from_toy_world(toyworld.load(folder, UNTRAINED), fuse=False)
    told = []
    expected = latents(pipeline, progress=lambda *args: told.append(args))
    assert [last for last in told if last[1] == last[2]] == [
        ("encode", 7, 7),
        ("references", 1, 1),
        ("sample", 4, 4),
        ("decode", 1, 1),
    ]

    class Stop(BaseException):
        pass

    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in pipeline.mllm.model.modules())

    before = hooks()
    for kind in ("encode", "references", "sample", "decode"):

        def stop(what, done, total, kind=kind):
            if what == kind:
                raise Stop

        with pytest.raises(Stop):
            latents(pipeline, images=[picture(7)], prompt=f"stopped at {kind}", progress=stop)
    assert hooks() == before
    assert torch.equal(latents(pipeline), expected)


def test_a_visit_puts_the_very_same_tensors_back(folder):
    module = toyworld.load(folder, UNTRAINED).mllm.model
    before = {name: (id(p), p.data_ptr()) for name, p in module.named_parameters()}
    buffers = {name: id(buffer) for name, buffer in module.named_buffers()}
    with pytest.raises(KeyError), visiting(module, "meta"):
        assert all(p.is_meta for p in module.parameters())
        raise KeyError
    assert {name: (id(p), p.data_ptr()) for name, p in module.named_parameters()} == before
    assert {name: id(buffer) for name, buffer in module.named_buffers()} == buffers
    assert module.lm_head.weight is module.model.language_model.embed_tokens.weight


def test_offloading_gives_the_same_latents_and_leaves_every_weight_at_home(folder, pipeline):
    toy = toyworld.load(folder, UNTRAINED)
    offloaded = SqueezePipeline.from_files(
        toy.paths.flux, toy.paths.vae, toy.paths.mllm, toy.paths.adapter, fuse=True, device="cpu", offload=True
    )
    before = [p.data_ptr() for p in offloaded.transformer.parameters()]
    assert torch.equal(latents(offloaded), latents(pipeline))
    assert [p.data_ptr() for p in offloaded.transformer.parameters()] == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 500}, r"height is 500 px.*496 or 512"),
        ({"width": 8}, "width is 8 px"),
        ({"curve": "sine"}, "cosine"),
        ({"steps": 0}, "at least 1 step"),
        ({"batch": 0}, "at least 1 picture"),
        ({"placement": "left"}, "uxo, offset"),
        ({"fit": "crop"}, "resize, pad"),
        ({"tiles": 13}, "1 to 12"),
        ({"text_layers": "3-x"}, "3-x"),
        ({"guidance": float("nan")}, "guidance is nan; give a number of 0 or more"),
        ({"guidance": -1.0}, "guidance is -1;"),
        ({"true_cfg": float("inf")}, "true_cfg is inf;"),
        ({"true_cfg": -0.5}, r"true_cfg is -0\.5;"),
        ({"seed": -1}, "seed is -1; give 0 or more"),
        ({"seed": 2**64}, "at most 18446744073709551615"),
    ],
)
def test_impossible_settings_are_refused_where_they_are_made(change, words):
    with pytest.raises(SqueezeError, match=words):
        GenerationSettings(**change)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": torch.zeros(1, 16, 8, 8)}, r"\[1, 16, 8, 12\]"),
        ({"sigmas": torch.tensor([0.5, 0.7, 0.0])}, "fall"),
        ({"sigmas": torch.tensor([1.0, 0.5])}, "exactly 0"),
        ({"masks": []}, "1 reference pictures and 0 masks"),
        ({"pooled": torch.zeros(768)}, r"\[1, 768\]"),
        ({"settings": replace(SMALL, text_layers="0-9")}, '"0-6"'),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(pipeline, options, words):
    with pytest.raises(SqueezeError, match=words):
        pipeline.generate(PROMPT, [picture()], **{"settings": SMALL, **options})


def test_an_adapter_of_other_models_is_refused_with_both_values(folder):
    toy = toyworld.load(folder, UNTRAINED)

    def made(config: AdapterConfig):
        return SqueezePipeline(toy.transformer, toy.vae, toy.mllm, toy.adapter.aggregator, config)

    config = toy.adapter.config
    other = replace(config.mllm, final_norm_hash="0" * 16)
    with pytest.raises(SqueezeError, match=f"{'0' * 16}.*{config.mllm.final_norm_hash}"):
        made(config.model_copy(update={"mllm": other}))
    with pytest.raises(SqueezeError, match=r"width 128.*width 256"):
        made(config.model_copy(update={"dit": config.dit.model_copy(update={"width": 128})}))
    with pytest.raises(SqueezeError, match="cached"):
        made(config.model_copy(update={"attention": "cached"}))


def test_an_adapter_trained_with_clip_l_asks_for_its_vector(folder):
    toy = toyworld.load(folder, UNTRAINED)
    config = toy.adapter.config.model_copy(update={"pooled": "clip_l"})
    pipeline = SqueezePipeline(toy.transformer, toy.vae, toy.mllm, toy.adapter.aggregator, config)
    with pytest.raises(SqueezeError, match="CLIP-L"):
        latents(pipeline)
    pooled = [torch.full((1, 768), value) for value in (0.0, 1.0)]
    assert not torch.equal(latents(pipeline, pooled=pooled[0]), latents(pipeline, pooled=pooled[1]))


def test_another_adapter_does_not_run_the_mllm_again(folder, monkeypatch):
    """And gives what a pipeline made with it gives; going back gives the first pictures again."""
    first = toyworld.load(folder, UNTRAINED)
    other = replace(first.adapter, lora={key: -2 * tensor for key, tensor in first.adapter.lora.items()})
    pipeline = SqueezePipeline.from_toy_world(first, fuse=False)
    reads = calls(monkeypatch, pipeline.mllm, "encode_many")
    before = latents(pipeline)
    pipeline.use_adapter(other)
    after = latents(pipeline)
    assert len(reads) == 1 and not torch.allclose(after, before, atol=1e-2)
    fresh = SqueezePipeline.from_toy_world(replace(toyworld.load(folder, UNTRAINED), adapter=other), fuse=False)
    assert torch.allclose(latents(fresh), after, atol=1e-5)
    pipeline.use_adapter(first.adapter)
    assert torch.allclose(latents(pipeline), before, atol=1e-5) and len(reads) == 1


def test_an_adapter_that_does_not_fit_changes_nothing(folder):
    toy = toyworld.load(folder, UNTRAINED)
    pipeline = SqueezePipeline.from_toy_world(toy, fuse=False)
    before, spec = latents(pipeline), replace(toy.adapter.config.mllm, final_norm_hash="0" * 16)
    wrong = replace(toy.adapter, config=toy.adapter.config.model_copy(update={"mllm": spec}))
    with pytest.raises(SqueezeError, match="final_norm_hash"):
        pipeline.use_adapter(wrong)
    assert torch.equal(latents(pipeline), before)
    fused = SqueezePipeline.from_toy_world(toyworld.load(folder, UNTRAINED), fuse=True)
    with pytest.raises(SqueezeError, match="fused"):
        fused.use_adapter(toy.adapter)


def test_another_flux_than_the_adapters_is_refused(folder):
    from diffusers import FluxTransformer2DModel

    toy = toyworld.load(folder, UNTRAINED)
    config = toy.adapter.config
    for changes, said in (
        ({"in_channels": 384, "out_channels": 64}, "channels 64.*channels 384.*Fill"),
        ({"guidance_embeds": False}, "guidance True.*guidance False.*schnell"),
    ):
        other = FluxTransformer2DModel.from_config({**toy.transformer.config, **changes})
        with pytest.raises(SqueezeError, match=said):
            config.check_dit(spec_of(other))
    config.check_dit(spec_of(toy.transformer))
