"""The gate node against runs in which the conditioning of each stage is chosen by hand."""

import math
import random

import pytest
import torch

STEPS, HEIGHT, WIDTH, CONTEXT, TOKENS = 8, 8, 12, 64, 5
SAMPLERS = ["euler", "heun", "dpm_2", "dpmpp_2m", "dpmpp_2s_ancestral", "res_multistep", "deis"]


@pytest.fixture(scope="module")
def world(pack, comfy, tiny_flux):
    return World(pack, tiny_flux())


class World:
    """A tiny FLUX, a text, two references, and the pack's gate."""

    def __init__(self, pack, model):
        self.model = model
        self.nodes = pack("nodes.gate")
        self.core = pack("squeeze_core.gate")
        self.references = pack("squeeze_core.references").References.of
        draw = torch.Generator().manual_seed(0)
        self.text = torch.randn(1, TOKENS, CONTEXT, generator=draw)
        self.pooled = torch.randn(1, 768, generator=draw)
        self.latents = [torch.randn(1, 16, 4, 6, generator=draw), torch.randn(1, 16, 6, 4, generator=draw)]

    def positive(self, **options):
        return [[self.text, {"pooled_output": self.pooled, "guidance": 2.5, **options}]]

    def negative(self):
        return [[torch.zeros(1, 1, CONTEXT), {"pooled_output": torch.zeros(1, 768), "guidance": 2.5}]]

    def by_hand(self, late="drop", placement="uxo", **options):
        """What each stage should be given, written out."""
        silent = {
            "drop": (torch.zeros(1, 1, CONTEXT), torch.zeros(1, 768)),
            "zero": (torch.zeros_like(self.text), torch.zeros(1, 768)),
            "keep": (self.text, self.pooled),
        }[late]
        seen = {"reference_latents": self.latents, "reference_latents_method": placement, "guidance": 2.5} | options
        return {
            "early": [[self.text, {"pooled_output": self.pooled, "guidance": 2.5, **options}]],
            "middle": [[self.text, {"pooled_output": self.pooled, **seen}]],
            "late": [[silent[0], {"pooled_output": silent[1], **seen}]],
        }

    def gated(self, tau_1, tau_2, late="drop", conditioning=None, placement="uxo", **options):
        gate = self.core.Gate(tau_1, tau_2, late)
        references = self.references(tuple(self.latents), placement)
        return self.nodes.gated(conditioning or self.positive(), gate, references, guidance=2.5, **options)


def cosine(steps: int = STEPS) -> torch.Tensor:
    levels = torch.cos(torch.arange(steps + 1) / steps * math.pi / 2)
    levels[-1] = 0
    return levels


def sample(model, positive, negative, cfg=1.0, sampler="euler", sigmas=None, batch=1, seed=0, latent=None):
    """SamplerCustom's way, in process."""
    import comfy.sample
    import comfy.samplers

    sigmas = cosine() if sigmas is None else sigmas
    noise = torch.randn(batch, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    start = torch.zeros_like(noise)
    if latent is not None:
        noise, start = torch.zeros_like(noise), latent
    return comfy.sample.sample_custom(
        model,
        noise,
        cfg,
        comfy.samplers.sampler_object(sampler),
        sigmas,
        positive,
        negative,
        start,
        disable_pbar=True,
        seed=seed,
    )


def sample_by_hand(model, stages, stage_of, negative, cfg, sampler, seed=0, batch=1):
    """One run in which a guider picks the stage's conditioning at every evaluation of the model."""
    import comfy.samplers

    class ByHand(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006, core's signature
            positive = self.conds[stage_of(float(timestep[0]))]
            return comfy.samplers.sampling_function(
                self.inner_model,
                x,
                timestep,
                self.conds["negative"],
                positive,
                self.cfg,
                model_options=model_options,
                seed=seed,
            )

    guider = ByHand(model)
    guider.set_cfg(cfg)
    guider.inner_set_conds({**stages, "negative": negative})
    noise = torch.randn(batch, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    return guider.sample(
        noise,
        torch.zeros_like(noise),
        comfy.samplers.sampler_object(sampler),
        cosine(),
        disable_pbar=True,
        seed=seed,
    )


def assert_same(one, other):
    scale = other.abs().max()
    assert torch.isfinite(one).all() and (one - other).abs().max() <= 2e-5 * scale


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("late", ["drop", "zero", "keep"])
def test_gate_equals_three_split_runs_of_the_stock_sampler(world, seed, late, clean_memory):
    """Euler, cut by hand at the thresholds and carried on."""
    rng = random.Random(seed)
    tau_2, tau_1 = sorted(rng.uniform(0.1, 1.05) for _ in range(2))
    cfg = rng.choice([1.0, 3.0])
    sigmas = cosine()
    whole = sample(world.model, world.gated(tau_1, tau_2, late), world.negative(), cfg)
    stages = world.by_hand(late)
    latent = None
    for name, keep in (
        ("early", lambda s: s >= tau_1),
        ("middle", lambda s: tau_2 <= s < tau_1),
        ("late", lambda s: s < tau_2),
    ):
        steps = [i for i in range(STEPS) if keep(float(sigmas[i]))]
        if steps:
            part = sigmas[steps[0] : steps[-1] + 2]
            scaled = None if latent is None else latent / (1 - part[0]) if part[0] < 1 else latent
            latent = sample(world.model, stages[name], world.negative(), cfg, sigmas=part, latent=scaled)
            if part[-1] > 0:  # the core hands back x / (1 - sigma)
                latent = latent * (1 - part[-1])
    assert_same(whole, latent)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_gate_is_exact_for_every_sampler(world, sampler, cfg, clean_memory):
    """Second-order samplers look at sigmas between the steps."""
    rng = random.Random(f"{sampler}{cfg}")
    for _ in range(2):
        tau_2, tau_1 = sorted(rng.uniform(0.05, 1.05) for _ in range(2))
        gate = world.core.Gate(tau_1, tau_2)
        by_hand = sample_by_hand(
            world.model,
            world.by_hand(),
            lambda sigma, gate=gate: gate.stage(sigma).name.lower(),
            world.negative(),
            cfg,
            sampler,
        )
        assert_same(sample(world.model, world.gated(tau_1, tau_2), world.negative(), cfg, sampler), by_hand)


def test_thresholds_on_a_step_belong_to_the_earlier_stage(world, clean_memory):
    """tau equal to a sigma of the schedule: equation 5 has t >= tau."""
    sigmas = cosine()
    tau_1, tau_2 = float(sigmas[2]), float(sigmas[4])
    gate = world.core.Gate(tau_1, tau_2)
    names = [gate.stage(float(s)).name for s in sigmas[:-1]]
    assert names == ["EARLY"] * 3 + ["MIDDLE"] * 2 + ["LATE"] * 3
    by_hand = sample_by_hand(
        world.model,
        world.by_hand(),
        lambda sigma: gate.stage(sigma).name.lower(),
        world.negative(),
        1.0,
        "euler",
    )
    assert_same(sample(world.model, world.gated(tau_1, tau_2), world.negative()), by_hand)


def test_ksampler_and_a_batch_of_two(world, comfy, clean_memory):
    import comfy.sample

    noise = torch.randn(2, 16, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3))
    arguments = (6, 2.0, "euler", "simple")
    gated = comfy.sample.sample(
        world.model, noise, *arguments, world.gated(0.9, 0.6), world.negative(), torch.zeros_like(noise),
        disable_pbar=True, seed=3,
    )  # fmt: skip
    for index in range(2):
        alone = comfy.sample.sample(
            world.model, noise[index : index + 1], *arguments, world.gated(0.9, 0.6), world.negative(),
            torch.zeros_like(noise[:1]), disable_pbar=True, seed=3,
        )  # fmt: skip
        assert_same(gated[index : index + 1], alone)


def test_absent_tokens_are_absent(world, clean_memory):
    """What reaches the model: no references early, one token late."""
    import comfy.patcher_extension

    seen = []

    def watch(executor, x, timestep, context, y, guidance, ref_latents, *args, **kwargs):
        references = len(ref_latents or [])
        seen.append((float(timestep[0]), context.shape[1], references, bool(y.any())))
        return executor(x, timestep, context, y, guidance, ref_latents, *args, **kwargs)

    model = world.model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", watch)
    sample(model, world.gated(0.95, 0.5), world.negative())
    for sigma, tokens, references, pooled in seen:
        expected = (TOKENS, 0, True) if sigma >= 0.95 else (TOKENS, 2, True) if sigma >= 0.5 else (1, 2, False)
        assert (tokens, references, pooled) == expected, sigma
    assert len(seen) == STEPS


def test_references_from_upstream_are_gated_as_well(world, clean_memory):
    upstream = world.positive(reference_latents=world.latents[:1], reference_latents_method="uxo")
    both = world.nodes.gated(
        upstream,
        world.core.Gate(0.9, 0.5),
        world.references((world.latents[1],), "auto"),
        guidance=2.5,
    )
    assert_same(
        sample(world.model, both, world.negative()),
        sample(world.model, world.gated(0.9, 0.5), world.negative()),
    )


def test_mask_and_area_conditioning_keep_their_place(world, clean_memory):
    mask = torch.zeros(1, HEIGHT * 8, WIDTH * 8)
    mask[:, :, : WIDTH * 4] = 1
    for place in ({"mask": mask, "mask_strength": 1.0}, {"area": (4, 6, 0, 0), "strength": 0.7}):
        rest = world.positive()
        conditioning = world.positive(**place) + rest
        gate = world.core.Gate(0.9, 0.5)
        references = world.references(tuple(world.latents), "uxo")
        parts = {name: world.by_hand(**place)[name] + world.by_hand()[name] for name in ("early", "middle", "late")}
        by_hand = sample_by_hand(
            world.model,
            parts,
            lambda sigma: gate.stage(sigma).name.lower(),  # noqa: B023, called at once
            world.negative(),
            1.0,
            "euler",
        )
        gated = world.nodes.gated(conditioning, gate, references, guidance=2.5)
        assert_same(sample(world.model, gated, world.negative()), by_hand)


def test_a_lora_upstream_is_felt_in_every_stage(world, clean_memory):
    model = world.model.clone()
    key = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    shape = model.model.state_dict()[key].shape
    model.add_patches(
        {key: ("diff", (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 0.05,))}, 1.0
    )
    gate = world.core.Gate(0.9, 0.5)
    by_hand = sample_by_hand(
        model, world.by_hand(), lambda s: gate.stage(s).name.lower(), world.negative(), 1.0, "euler"
    )
    gated = sample(model, world.gated(0.9, 0.5), world.negative())
    assert_same(gated, by_hand)
    assert (gated - sample(world.model, world.gated(0.9, 0.5), world.negative())).abs().max() > 1e-3


def test_a_control_net_is_felt_in_every_stage(world, comfy, clean_memory):
    """A ControlNet's own kind of object, and which sigmas it was asked at."""
    import comfy.controlnet

    asked = []

    class Push(comfy.controlnet.ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            asked.append(float(t[0]))
            image_tokens = x_noisy.shape[-1] * x_noisy.shape[-2] // 4
            push = torch.linspace(-1, 1, 128).expand(x_noisy.shape[0], image_tokens, 128)
            return {"input": [push], "output": []}

        def get_models(self):
            return []

        def copy(self):
            return self

    control = Push()
    gated = world.gated(0.9, 0.5, conditioning=world.positive(control=control))
    assert all(entry[1]["control"].previous_controlnet is control for entry in gated) and len(gated) == 3
    with_control = sample(world.model, gated, world.negative())
    assert sorted(set(asked), reverse=True) == [float(s) for s in cosine()[:-1]]
    assert (with_control - sample(world.model, world.gated(0.9, 0.5), world.negative())).abs().max() > 1e-3


def test_a_range_in_percent_is_intersected_with_the_model(world, clean_memory):
    to_sigma = world.model.get_model_object("model_sampling").percent_to_sigma
    limited = world.positive(start_percent=0.2, end_percent=0.7)
    start, end = to_sigma(0.2), to_sigma(0.7)
    entries = world.gated(0.9, 0.5, conditioning=limited, percent_to_sigma=to_sigma)
    assert not any(name.endswith("percent") for _, options in entries for name in options)
    for sigma in torch.linspace(0, 1, 4001).tolist():
        active = [
            options
            for _, options in entries
            if options.get("timestep_end", -1) <= sigma <= options.get("timestep_start", 2)
        ]
        assert len(active) == (1 if end <= sigma <= start else 0), sigma


def test_a_range_in_percent_without_the_model_is_refused_and_a_trivial_one_removed(world, pack):
    error = pack("squeeze_core.errors").SqueezeError
    with pytest.raises(error, match="Connect the model"):
        world.gated(0.9, 0.5, conditioning=world.positive(start_percent=0.2, end_percent=1.0))
    for _, options in world.gated(0.9, 0.5, conditioning=world.positive(start_percent=0.0, end_percent=1.0)):
        assert "start_percent" not in options and "end_percent" not in options


def test_gating_twice_intersects(world):
    once = world.gated(0.9, 0.5)
    twice = world.nodes.gated(once, world.core.Gate(0.7, 0.2))
    for sigma in torch.linspace(0, 1, 2001).tolist():
        active = [
            entry
            for entry in twice
            if entry[1].get("timestep_end", -1) <= sigma <= entry[1].get("timestep_start", 2)
        ]
        assert len(active) == 1, sigma


def test_without_references_nothing_is_gated(world):
    plain = world.positive(start_percent=0.3)
    ((tokens, options),) = world.nodes.gated(plain, world.core.Gate(), None, guidance=1.5)
    assert tokens is plain[0][0]
    assert options == {**plain[0][1], "guidance": 1.5}


def test_guidance_below_zero_leaves_what_is_there(world):
    references = world.references(tuple(world.latents))
    for _, options in world.nodes.gated(world.positive(), world.core.Gate(), references, guidance=-1.0):
        assert options["guidance"] == 2.5
    without = [[world.text, {"pooled_output": world.pooled}]]
    for _, options in world.nodes.gated(without, world.core.Gate(), references, guidance=-1.0):
        assert "guidance" not in options


def test_the_guidance_of_the_conditioning_stays_unless_one_is_set(world):
    (guidance,) = [given for given in world.nodes.TimestepGate.define_schema().inputs if given.id == "guidance"]
    conditioning = world.positive(guidance=3.7, reference_latents=world.latents)
    gated = world.nodes.TimestepGate.execute(conditioning, 0.95, 0.85, "drop", guidance.default).args[0]
    assert len(gated) == 3 and {options["guidance"] for _, options in gated} == {3.7}


def test_tau_above_one_never_lets_the_text_speak_alone(world, clean_memory):
    late_only = sample(world.model, world.gated(1.1, 1.1), world.negative())
    assert_same(late_only, sample(world.model, world.by_hand()["late"], world.negative()))
    text_only = sample(world.model, world.gated(0.0, 0.0), world.negative())
    assert_same(text_only, sample(world.model, world.by_hand()["early"], world.negative()))


def test_the_input_is_left_as_it_was(world):
    conditioning = world.positive(reference_latents=world.latents)
    before = dict(conditioning[0][1])
    world.gated(0.9, 0.5, conditioning=conditioning)
    assert conditioning[0][1] == before
