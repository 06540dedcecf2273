"""Subjects kept apart on ComfyUI, and the same headless: a tiny FLUX.1 and FLUX.2, stock samplers, the gate."""

import pytest
import torch
from test_attention import CONTEXT, HEIGHT, WIDTH, World, assert_same, cosine, differ, noise, sample


@pytest.fixture(scope="module")
def world(pack, comfy, tiny_flux):
    world = World(pack, tiny_flux(depth=2, single=2))
    world.layout = pack("nodes.layout")
    draw = torch.Generator().manual_seed(3)
    world.texts = [torch.randn(1, tokens, CONTEXT, generator=draw) for tokens in (4, 6, 3)]
    return world


def entry(world, text, **options):
    return [[text, {"pooled_output": world.pooled, "guidance": 2.5, **options}]]


def box(left: float, right: float) -> dict:
    """Of a share of the picture's width, as Create Bounding Boxes gives it."""
    pixels = WIDTH * 8
    return {"x": round(left * pixels), "y": 0, "width": round((right - left) * pixels), "height": HEIGHT * 8}


def subjects(world, places, order=None, references=True, placement="uxo"):
    """Through the node, chained."""
    chain = None
    for number in order or range(len(places)):
        own = world.references.References.of((world.latents[number],), placement) if references else None
        place = {"box": [[box(*places[number])]]} if places[number] is not None else {}
        (chain,) = world.layout.SubjectNode.execute(
            entry(world, world.texts[number]), f"toy {number}", references=own, subjects=chain, **place
        ).args
    return chain


def laid_out(world, chain, scene=None, **more):
    return world.layout.ApplyLayout.execute(chain, scene, **more).args[0]


HALVES = ((0.0, 0.5), (0.5, 1.0))


def test_one_subject_that_owns_the_whole_picture_is_no_layout(world, clean_memory):
    one = laid_out(world, subjects(world, [(0.0, 1.0)]))
    plain = entry(world, world.texts[0], reference_latents=world.latents[:1], reference_latents_method="uxo")
    assert torch.equal(sample(world.model, one, world.negative()), sample(world.model, plain, world.negative()))


def test_subjects_in_another_order_give_the_same_picture(world, clean_memory):
    """Where a reference stands depends on its place in the chain, so all are placed alike."""
    one = laid_out(world, subjects(world, HALVES, references=False))
    other = laid_out(world, subjects(world, HALVES, order=(1, 0), references=False))
    assert_same(sample(world.model, one, world.negative()), sample(world.model, other, world.negative()))


def test_what_one_subject_says_does_not_reach_the_other_in_one_block(pack, comfy, tiny_flux, clean_memory):
    """Double blocks 1, single blocks 0: changed words and references of subject 2 leave 1's half as it is."""
    world = World(pack, tiny_flux(depth=1, single=0))
    world.layout = pack("nodes.layout")
    draw = torch.Generator().manual_seed(3)
    world.texts = [torch.randn(1, tokens, CONTEXT, generator=draw) for tokens in (4, 6)]

    def first_velocity():
        start = noise()
        return one_call(world.model, start, laid_out(world, subjects(world, HALVES)), world.negative())

    before = first_velocity()
    world.texts[1] = world.texts[1] + 1
    world.latents[1] = world.latents[1] + 1
    after = first_velocity()
    assert torch.equal(before[..., : WIDTH // 2], after[..., : WIDTH // 2])
    assert differ(after[..., WIDTH // 2 :], before[..., WIDTH // 2 :])


def one_call(model, start, positive, negative):
    """What the model predicts at sigma 1."""
    import comfy.sample
    import comfy.samplers

    levels = torch.tensor([1.0, 0.0])
    chosen = comfy.samplers.sampler_object("euler")
    return comfy.sample.sample_custom(
        model, start, 1.0, chosen, levels, positive, negative, torch.zeros_like(start), disable_pbar=True, seed=0
    )


@pytest.mark.parametrize("late", ["drop", "zero", "keep"])
def test_it_goes_through_the_gate_in_all_stages(world, late, clean_memory):
    """Equal to a layout of each stage by hand."""
    gate = world.core.Gate(0.9, 0.5, late)
    whole = laid_out(world, subjects(world, HALVES), entry(world, world.texts[2]))
    gated = world.gate.gated(whole, gate)
    assert [len(options.get("reference_latents", ())) for _, options in gated] == [0, 2, 2]
    kept = [world.attention.rules_of(options) for _, options in gated]
    assert all(len(rules.places) == 2 for rules in kept)
    assert [len(rules.words) for rules in kept] == [3, 3, 0 if late == "drop" else 3]
    assert [[one.owner for one in rules.references] for rules in kept] == [[], [1, 2], [1, 2]]
    one = sample(world.model, gated, world.negative())
    assert differ(one, sample(world.model, whole, world.negative()))
    early = sample(world.model, world.gate.gated(whole, world.core.Gate(0.0, 0.0)), world.negative())
    without = laid_out(world, subjects(world, HALVES, references=False), entry(world, world.texts[2]))
    assert torch.equal(early, sample(world.model, without, world.negative()))


def test_until_a_sigma_and_free_below(world, clean_memory):
    chain = subjects(world, HALVES)
    joined = torch.cat(world.texts[:2], 1)
    plain = entry(world, joined, reference_latents=world.latents[:2], reference_latents_method="uxo")
    whole = sample(world.model, laid_out(world, chain), world.negative())
    half = laid_out(world, chain, until=0.6)
    assert len(half) == 2
    for sigma in torch.tensor([1.0, 0.6, 0.599, 0.0]).tolist():
        active = [
            options
            for _, options in half
            if options.get("timestep_end", -1) <= sigma <= options.get("timestep_start", 2)
        ]
        assert len(active) == 1
        assert bool(world.attention.rules_of(active[0]).places) == (sigma > 0.5995)
    result = sample(world.model, half, world.negative())
    assert differ(result, whole) and differ(result, sample(world.model, plain, world.negative()))


def test_ksampler_a_batch_cfg_and_odd_sizes(world, comfy, clean_memory):
    import comfy.sample

    chain = laid_out(world, subjects(world, HALVES))
    gated = world.gate.gated(chain, world.core.Gate(0.9, 0.5))
    start = noise(2, 9, 11)
    arguments = (5, 2.5, "dpmpp_2m", "simple", gated, world.negative())
    both = comfy.sample.sample(world.model, start, *arguments, torch.zeros_like(start), disable_pbar=True, seed=1)
    for n in range(2):
        one = start[n : n + 1]
        alone = comfy.sample.sample(world.model, one, *arguments, torch.zeros_like(one), disable_pbar=True, seed=1)
        assert_same(both[n : n + 1], alone, 1e-5)


def with_lora(model):
    """A patch on an attention weight, as a LoRA loader leaves it."""
    patched, name = model.clone(), "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    delta = torch.randn(model.model.state_dict()[name].shape, generator=torch.Generator().manual_seed(2)) / 8
    patched.add_patches({name: ("diff", (delta,))}, 1.0)
    return patched


def in_fp8(model):
    import comfy.sd

    state = {name: tensor.clone() for name, tensor in model.model.diffusion_model.state_dict().items()}
    return comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float8_e4m3fn})


def compiled(model):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    made = model.clone()
    set_torch_compile_wrapper(model=made, backend="aot_eager")
    return made


@pytest.mark.parametrize("loaded", [with_lora, in_fp8, compiled])
def test_it_holds_however_the_model_was_loaded(world, loaded, clean_memory):
    """One owner of everything changes nothing, two do; a compiled model gives what it gives uncompiled."""
    model, negative = loaded(world.model), world.negative()
    plain = entry(world, world.texts[0], reference_latents=world.latents[:1], reference_latents_method="uxo")
    whole = laid_out(world, subjects(world, [(0.0, 1.0)]))
    assert_same(sample(model, whole, negative), sample(model, plain, negative))
    halves = laid_out(world, subjects(world, HALVES))
    apart = sample(model, halves, negative)
    joint = torch.cat(world.texts[:2], 1)
    together = entry(world, joint, reference_latents=world.latents[:2], reference_latents_method="uxo")
    assert differ(apart, sample(model, together, negative))
    same_as_plain_weights = torch.allclose(apart, sample(world.model, halves, negative), atol=1e-5)
    assert same_as_plain_weights == (loaded is compiled)


def test_sampler_custom_advanced_gives_the_same(world, comfy, clean_memory):
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    class Noise:
        seed = 0

        def generate_noise(self, latent):
            return noise(1, HEIGHT, WIDTH)

    chain = laid_out(world, subjects(world, HALVES))
    guider = comfy.samplers.CFGGuider(world.model)
    guider.set_conds(chain, world.negative())
    guider.set_cfg(1.0)
    sigmas, euler = cosine(), comfy.samplers.sampler_object("euler")
    latent = {"samples": torch.zeros_like(noise(1, HEIGHT, WIDTH))}
    made = SamplerCustomAdvanced.execute(Noise(), guider, euler, sigmas, latent)[0]["samples"]
    assert_same(made, sample(world.model, chain, world.negative()))


@pytest.mark.parametrize("name", ["attention_basic", "attention_sub_quad", "attention_split", "attention_pytorch"])
def test_every_attention_function_of_a_cpu_gives_the_same(world, name, clean_memory, monkeypatch):
    import comfy.ldm.flux.math
    import comfy.ldm.modules.attention as functions

    whole = laid_out(world, subjects(world, HALVES), entry(world, world.texts[2]))
    expected = sample(world.model, whole, world.negative())
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", getattr(functions, name))
    assert_same(sample(world.model, whole, world.negative()), expected, 1e-5)


def test_a_strength_and_a_region_hold_within_a_layout(world, clean_memory):
    chain = subjects(world, HALVES)
    plain = sample(world.model, laid_out(world, chain), world.negative())
    item = world.references.Reference(world.latents[0], strength=3.0, region=world.region(0, 0.25))
    strong = (world.layout.replace(chain[0], references=world.references.References((item,), "uxo")), chain[1])
    assert differ(sample(world.model, laid_out(world, strong), world.negative()), plain)


def test_both_hosts_give_the_same_latents(world, diffusers_flux, clean_memory):
    from squeeze_core.attention.regions import PixelBox, Region
    from squeeze_core.attention.rules import AttentionRules, ReferenceRule
    from squeeze_core.flux.conditioning import Conditioning
    from squeeze_core.flux.model import velocity
    from squeeze_core.flux.sampling import euler

    places = tuple(
        (number, Region((PixelBox(*(box(*half)[name] for name in ("x", "y", "width", "height"))),)))
        for number, half in enumerate(HALVES, start=1)
    )
    words = ((0, 3), (1, 4), (2, 6))
    rules = AttentionRules((ReferenceRule(1), ReferenceRule(2)), words, places)
    context = torch.cat([world.texts[2], *world.texts[:2]], 1)
    scaled = tuple((latent - 0.1159) * 0.3611 for latent in world.latents[:2])
    heard = Conditioning(context, world.pooled, 2.5, scaled, "uxo", rules=rules)
    levels = cosine()
    with torch.no_grad():
        ours = euler(lambda step, x: velocity(diffusers_flux, x, levels[step], heard), noise(), levels)
    scene = entry(world, world.texts[2])
    theirs = sample(world.model, laid_out(world, subjects(world, HALVES), scene), world.negative())
    assert_same(ours / 0.3611 + 0.1159, theirs)


@pytest.fixture(scope="module")
def diffusers_flux(world, comfy):
    from test_attention import in_diffusers

    return in_diffusers(world.model)


def test_flux_2_and_its_padded_text(pack, comfy, tiny_flux_2, clean_memory):
    """Text padded to 512 on the left, patches of one latent: one subject of all is no layout, two are."""
    world = World(pack, tiny_flux_2)
    world.layout = pack("nodes.layout")
    draw = torch.Generator().manual_seed(3)
    world.texts = [torch.randn(1, tokens, CONTEXT, generator=draw) for tokens in (4, 6)]
    world.latents = [torch.randn(1, 128, 4, 4, generator=draw) for _ in range(2)]
    start = torch.randn(1, 128, 4, 6, generator=draw)

    def run(conditioning):
        return sample(world.model, conditioning, world.negative(), start=start)

    def chain(places):
        made = None
        for number, (left, right) in enumerate(places):
            own = world.references.References.of((world.latents[number],))
            place = {"x": left * 96, "y": 0, "width": (right - left) * 96, "height": 64}
            (made,) = world.layout.SubjectNode.execute(
                entry(world, world.texts[number]), "", references=own, box=place, subjects=made
            ).args
        return made

    two = laid_out(world, chain(HALVES))
    joined = torch.cat(world.texts, 1)
    plain = run(entry(world, joined, reference_latents=world.latents))
    apart = run(two)
    assert torch.isfinite(apart).all() and differ(apart, plain)
    gated = world.gate.gated(two, world.core.Gate(0.9, 0.5))
    assert torch.isfinite(run(gated)).all()
    strong = world.references.Reference(world.latents[0], strength=2.0)
    upstream = entry(world, world.texts[0])
    gate = world.core.Gate(1.1, 0.0)
    doubled = run(world.gate.gated(upstream, gate, world.references.References((strong,))))
    assert differ(doubled, run(entry(world, world.texts[0], reference_latents=world.latents[:1])))


@pytest.fixture(scope="module")
def tiny_flux_2(comfy):
    """A random FLUX.2 of ComfyUI's own, width 128."""
    import comfy.model_patcher
    import comfy.supported_models

    config = {
        "image_model": "flux2",
        "in_channels": 128,
        "out_channels": 128,
        "vec_in_dim": None,
        "context_in_dim": CONTEXT,
        "hidden_size": 128,
        "mlp_ratio": 3.0,
        "num_heads": 1,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [32, 32, 32, 32],
        "theta": 2000,
        "patch_size": 1,
        "qkv_bias": False,
        "guidance_embed": True,
        "txt_ids_dims": [3],
        "global_modulation": True,
        "mlp_silu_act": True,
        "ops_bias": False,
        "default_ref_method": "index",
        "ref_index_scale": 10.0,
    }
    settings = comfy.supported_models.Flux2(config)
    settings.set_inference_dtype(torch.float32, None)
    model = settings.get_model({}, "", device=torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.diffusion_model.named_parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.02
        values = torch.randn(parameter.shape, generator=draw) * scale
        parameter.data = values + 1 if "norm" in name and parameter.ndim == 1 else values
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    device = torch.device("cpu")
    return patcher(model.eval(), load_device=device, offload_device=device)


def refusals(world):
    chain = subjects(world, HALVES)
    text = world.texts[0]
    wide = [[torch.zeros(1, 3, CONTEXT * 2), {}]]
    return {
        "no place": (lambda: laid_out(world, subjects(world, (None,))), "has no place"),
        "another number of boxes": (lambda: laid_out(world, chain, boxes=[[box(0, 1)]]), "2 subjects and 1 boxes"),
        "one covered by the other": (
            lambda: sample(
                world.model, laid_out(world, subjects(world, (HALVES[0], (0.0, 1.0)))), world.negative()
            ),
            "subject 1 is covered",
        ),
        "two entries": (lambda: world.layout.SubjectNode.execute(entry(world, text) * 2, "a"), "2 entries"),
        "a time range": (
            lambda: world.layout.SubjectNode.execute(entry(world, text, timestep_start=0.5), "a"),
            "has a time range",
        ),
        "another width": (lambda: laid_out(world, chain, wide), "64 and 128 wide"),
        "placements that differ": (
            lambda: laid_out(world, chain[:1] + subjects(world, HALVES, placement="index")[1:]),
            "placed index and uxo",
        ),
        "thirteen subjects": (
            lambda: world.layout.SubjectNode.execute(entry(world, text), "a", subjects=chain[:1] * 12),
            "at most 12",
        ),
        "a box and a mask": (
            lambda: world.layout.SubjectNode.execute(
                entry(world, text), "a", region=torch.ones(1, 8, 8), box=box(0, 1)
            ),
            "boxes and a mask",
        ),
        "a box outside": (
            lambda: sample(world.model, laid_out(world, subjects(world, ((2.0, 3.0),))), world.negative()),
            "lies outside the picture of 96 x 64 px",
        ),
    }


@pytest.mark.parametrize("name", [
    "no place",
    "another number of boxes",
    "one covered by the other",
    "two entries",
    "a time range",
    "another width",
    "placements that differ",
    "thirteen subjects",
    "a box and a mask",
    "a box outside",
])  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(world, name, clean_memory):
    make, message = refusals(world)[name]
    with pytest.raises(world.error, match=message):
        make()
