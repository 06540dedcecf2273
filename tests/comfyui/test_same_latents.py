"""Both hosts, one result: nodes with stock samplers, and the headless pipeline, on the toy world."""

import numpy as np
import pytest
import torch
from PIL import Image

from squeeze_core import toyworld
from squeeze_core.gate import Gate
from squeeze_core.pipeline import GenerationSettings, SqueezePipeline

PROMPT = "A photo of the star of picture 1 next to the heart of picture 2, on a beach"
HEIGHT, WIDTH, STEPS, LONG_SIDE = 96, 128, 6, 64


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The toy world of this test lies in a cache folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pipeline(cache):
    return SqueezePipeline.from_toy_world(toyworld.load())


@pytest.fixture(scope="module")
def parts(cache, pack, comfy):
    return outputs(pack("nodes.toyworld").ToyWorldNode)


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((50, 70), (80, 40))]


@pytest.fixture(scope="module")
def masks():
    area = np.zeros((50, 70), dtype=np.uint8)
    area[10:40, 20:60] = 255
    return [Image.fromarray(area), None]


def outputs(node, *args, **kwargs):
    result = node.execute(*args, **kwargs)
    return result.args if hasattr(result, "args") else result.result


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)[None]


class Graph:
    """The nodes of a workflow, executed in order."""

    def __init__(self, pack, parts, pictures, masks, settings: GenerationSettings):
        import comfy.sample
        import comfy.samplers

        model, vae, mllm, dla, _ = parts
        gate = settings.gate
        named = {f"picture_{number}": tensor(picture) for number, picture in enumerate(pictures, start=1)}
        (states,) = outputs(pack("nodes.mllm").Encode, mllm, PROMPT, images=named)
        positive, negative, _ = outputs(
            pack("nodes.dla").Aggregate, states, dla, settings.text_layers, settings.image_layers
        )
        references = None
        for picture, mask in zip(pictures, masks):
            references, _ = outputs(
                pack("nodes.references").ReferenceTokens,
                vae,
                tensor(picture),
                LONG_SIDE,
                settings.placement,
                mask=None if mask is None else tensor(mask),
                references=references,
            )
        (gated, _) = outputs(
            pack("nodes.gate").TimestepGate,
            positive,
            gate.tau_1,
            gate.tau_2,
            gate.late,
            settings.guidance,
            references=references,
        )
        (sigmas,) = outputs(pack("nodes.sigmas").Sigmas, model, STEPS, settings.curve, 1.0)
        empty = torch.zeros(settings.batch, 16, HEIGHT // 8, WIDTH // 8)
        self.latents = comfy.sample.sample_custom(
            model,
            comfy.sample.prepare_noise(empty, settings.seed),
            settings.true_cfg,
            comfy.samplers.sampler_object("euler"),
            sigmas,
            gated,
            negative,
            empty,
            disable_pbar=True,
            seed=settings.seed,
        )
        self.pixels = vae.decode(self.latents)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """To float32 rounding, which a trained FLUX makes larger here and there over its steps."""
    apart, scale = (ours - theirs).abs(), theirs.abs().max()
    assert apart.max() < 3e-5 * scale and apart.mean() < 1e-6 * scale, (apart.max(), apart.mean(), scale)


CASES = {
    "defaults": {},
    "another seed and gate": {"seed": 3, "gate": Gate(0.9, 0.6)},
    "zeros of the same length": {"gate": Gate(0.98, 0.7, "zero")},
    "text kept": {"gate": Gate(0.95, 0.85, "keep")},
    "mllm only": {"gate": Gate(0, 0)},
    "vae only": {"gate": Gate(1.1, 1.1)},
    "placed as kontext": {"placement": "offset"},
    "placed by index": {"placement": "index"},
    "true cfg": {"true_cfg": 2.5},
    "batch of two": {"batch": 2},
    "layers zeroed": {"text_layers": "0-3", "image_layers": "4-6"},
    "other guidance and curve": {"guidance": 4.0, "curve": "raised_cosine"},
}


@pytest.mark.parametrize("name", CASES)
def test_nodes_and_pipeline_give_the_same_latents(pack, parts, pipeline, pictures, masks, name):
    settings = GenerationSettings(
        **{
            "height": HEIGHT,
            "width": WIDTH,
            "steps": STEPS,
            "long_side": LONG_SIDE,
            "gate": Gate(0.95, 0.85),
            "guidance": 2.5,
            "placement": "uxo",
            "seed": 1,
            **CASES[name],
        }
    )
    ours = pipeline.generate(PROMPT, pictures, settings, masks=masks)
    theirs = Graph(pack, parts, pictures, masks, settings)
    assert_same(ours.latents, theirs.latents)
    pixels = torch.cat([tensor(image) for image in ours.images])
    assert (pixels - theirs.pixels).abs().max() <= 0.51 / 255  # a picture has 8 bits


def test_without_references_both_hear_the_text_in_every_step(pack, parts, pipeline):
    settings = GenerationSettings(
        height=HEIGHT, width=WIDTH, steps=STEPS, gate=Gate(0.95, 0.85), guidance=2.5, placement="uxo"
    )
    ours = pipeline.generate(PROMPT, settings=settings)
    theirs = Graph(pack, parts, [], [], settings)
    assert_same(ours.latents, theirs.latents)


def test_the_comparison_would_notice_a_gate_that_is_off_by_one_step(pipeline, pictures):
    def latents(tau_2: float) -> torch.Tensor:
        gate = Gate(0.95, tau_2)
        settings = GenerationSettings(height=HEIGHT, width=WIDTH, steps=STEPS, long_side=LONG_SIDE, gate=gate)
        return pipeline.generate(PROMPT, pictures, settings).latents

    # The six steps start at 1, 0.966, 0.866, 0.707, 0.5 and 0.259.
    assert (latents(0.85) - latents(0.70)).abs().max() > 1e-3 * latents(0.85).abs().max()


@pytest.mark.parametrize("late", ["drop", "keep"])
def test_a_layout_of_subjects_gives_the_same_latents(pack, parts, pipeline, pictures, late):
    """One encode a subject, contexts joined, the gate: nodes with stock samplers, and headless."""
    import comfy.sample
    import comfy.samplers

    from squeeze_core.attention.regions import PixelBox, Region
    from squeeze_core.scene import PlacedSubject, generate_scene

    model, vae, mllm, dla, _ = parts
    captions = ("a photo of the star, on the left, on a beach", "a photo of the heart, on the right, on a beach")
    boxes = [(0, 0, WIDTH // 2, HEIGHT), (WIDTH // 2, 16, WIDTH // 2, HEIGHT - 16)]
    settings = GenerationSettings(
        height=HEIGHT, width=WIDTH, steps=STEPS, long_side=LONG_SIDE, guidance=2.5, placement="uxo", seed=1,
        gate=Gate(0.95, 0.7, late),
    )  # fmt: skip
    subjects = [
        PlacedSubject(caption, Region((PixelBox(*box),)), picture)
        for caption, box, picture in zip(captions, boxes, pictures)
    ]
    ours = generate_scene(pipeline, subjects, settings)

    chain = None
    for caption, box, picture in zip(captions, boxes, pictures):
        image = tensor(picture)
        (states,) = outputs(pack("nodes.mllm").Encode, mllm, caption, images={"picture_1": image})
        positive, negative, _ = outputs(pack("nodes.dla").Aggregate, states, dla, "all", "all")
        references, _ = outputs(pack("nodes.references").ReferenceTokens, vae, image, LONG_SIDE, "uxo")
        drawn = dict(zip(("x", "y", "width", "height"), box))
        (chain,) = outputs(
            pack("nodes.layout").SubjectNode, positive, "", references=references, box=[[drawn]], subjects=chain
        )
    (joined,) = outputs(pack("nodes.layout").ApplyLayout, chain)
    (gated, _) = outputs(pack("nodes.gate").TimestepGate, joined, 0.95, 0.7, late, 2.5)
    (sigmas,) = outputs(pack("nodes.sigmas").Sigmas, model, STEPS, settings.curve, 1.0)
    empty = torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8)
    theirs = comfy.sample.sample_custom(
        model, comfy.sample.prepare_noise(empty, 1), 1.0, comfy.samplers.sampler_object("euler"), sigmas, gated,
        negative, empty, disable_pbar=True, seed=1,
    )  # fmt: skip
    assert_same(ours.latents, theirs)
    alone = pipeline.generate(PROMPT, pictures, settings)
    assert (ours.latents - alone.latents).abs().max() > 1e-2


def test_a_plan_gives_the_same_latents(pack, parts, pipeline, pictures):
    """Encode Plan, Apply Layout and the gate with stock samplers, and `generate --plan`'s way headless."""
    import comfy.sample
    import comfy.samplers

    from squeeze_core.planning.plan import ScenePlan
    from squeeze_core.scene import generate_scene, placed_subjects

    written = {
        "subjects": [
            {"number": 1, "picture": 2, "caption": "a photo of the heart, on the left, on a beach", "depth": 1},
            {"number": 2, "picture": 1, "caption": "a photo of the star, on the right, on a beach", "depth": 2},
        ],
        "grid": [[0] * 8] * 2 + [[1] * 3 + [0] * 2 + [2] * 3] * 6,
    }
    settings = GenerationSettings(
        height=HEIGHT, width=WIDTH, steps=STEPS, long_side=LONG_SIDE, guidance=2.5, placement="uxo", seed=1,
        gate=Gate(0.95, 0.7),
    )  # fmt: skip
    ours = generate_scene(pipeline, placed_subjects(ScenePlan.parse(written), pictures), settings)

    model, vae, mllm, dla, _ = parts
    references = None
    for picture in pictures:
        references, _ = outputs(
            pack("nodes.references").ReferenceTokens, vae, tensor(picture), LONG_SIDE, "uxo", references=references
        )
    plans = (pack("squeeze_core.planning.plan").ScenePlan.parse(written),)
    subjects, scene, negative = outputs(
        pack("nodes.encode_plan").EncodePlan, plans, mllm, dla, references=references
    )
    assert len(scene) == 1
    layout = pack("nodes.layout").ApplyLayout
    (joined,) = outputs(layout, subjects)
    (gated, _) = outputs(pack("nodes.gate").TimestepGate, joined, 0.95, 0.7, "drop", 2.5)
    (sigmas,) = outputs(pack("nodes.sigmas").Sigmas, model, STEPS, settings.curve, 1.0)
    empty = torch.zeros(1, 16, HEIGHT // 8, WIDTH // 8)
    theirs = comfy.sample.sample_custom(
        model, comfy.sample.prepare_noise(empty, 1), 1.0, comfy.samplers.sampler_object("euler"), sigmas, gated,
        negative, empty, disable_pbar=True, seed=1,
    )  # fmt: skip
    assert_same(ours.latents, theirs)
    # Subject nodes in the order of the numbers take their places from the plan.
    (placed,) = outputs(layout, subjects[::-1], plan=plans)
    rules = pack("nodes.attention").rules_of(placed[0][1])
    assert [place.mask.sum() for _, place in rules.places] == [18, 18]
    error = pack("squeeze_core.errors").SqueezeError
    with pytest.raises(error, match="1 subjects, and 2 in the plan"):
        outputs(layout, subjects[:1], plan=plans)
    with pytest.raises(error, match="boxes and a plan"):
        outputs(layout, subjects, boxes=[[]], plan=plans)
    with pytest.raises(error, match="picture 2, but there are 1"):
        few = references.of(references.latents[:1])
        outputs(pack("nodes.encode_plan").EncodePlan, plans, mllm, dla, references=few)
