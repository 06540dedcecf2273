"""Strength, window and region of references on ComfyUI: stock samplers on a tiny FLUX, and the same headless."""

import math
import random

import pytest
import torch

STEPS, HEIGHT, WIDTH, CONTEXT, TOKENS = 6, 8, 12, 64, 5


@pytest.fixture(scope="module")
def world(pack, comfy, tiny_flux):
    return World(pack, tiny_flux(depth=2, single=2))


class World:
    """A tiny FLUX, a text, two references, the gate, and the rules."""

    def __init__(self, pack, model):
        self.model = model
        self.gate = pack("nodes.gate")
        self.attention = pack("nodes.attention")
        self.core = pack("squeeze_core.gate")
        self.references = pack("squeeze_core.references")
        self.regions = pack("squeeze_core.attention.regions")
        self.rules = pack("squeeze_core.attention.rules")
        self.error = pack("squeeze_core.errors").SqueezeError
        draw = torch.Generator().manual_seed(0)
        self.text = torch.randn(1, TOKENS, CONTEXT, generator=draw)
        self.pooled = torch.randn(1, 768, generator=draw)
        self.latents = [torch.randn(1, 16, *size, generator=draw) for size in ((4, 6), (6, 4), (4, 4))]

    def positive(self, **options):
        return [[self.text, {"pooled_output": self.pooled, "guidance": 2.5, **options}]]

    def negative(self):
        return [[torch.zeros(1, 1, CONTEXT), {"pooled_output": torch.zeros(1, 768), "guidance": 2.5}]]

    def by_hand(self, latents, late=None):
        text, pooled = (self.text, self.pooled) if late is None else late
        options = {"pooled_output": pooled, "guidance": 2.5}
        if latents:
            options |= {"reference_latents": latents, "reference_latents_method": "uxo"}
        return [[text, options]]

    def heard(self, *how: dict, tau_1=1.1, tau_2=0.0, late="drop", conditioning=None):
        """The gate's output for the references, each heard as the dictionary says. By default always, with text."""
        items = tuple(self.references.Reference(latent, **one) for latent, one in zip(self.latents, how))
        references = self.references.References(items, "uxo")
        gate = self.core.Gate(tau_1, tau_2, late)
        return self.gate.gated(conditioning or self.positive(), gate, references)

    def region(self, left: float, right: float, value: float = 1.0):
        mask = torch.zeros(HEIGHT * 8, WIDTH * 8)
        mask[:, int(left * WIDTH * 8) : int(right * WIDTH * 8)] = value
        return self.regions.Region(mask=mask)


def cosine(steps: int = STEPS) -> torch.Tensor:
    levels = torch.cos(torch.arange(steps + 1) / steps * math.pi / 2)
    levels[-1] = 0
    return levels


def noise(batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(batch, 16, height, width, generator=torch.Generator().manual_seed(0))


def sample(model, positive, negative, cfg=1.0, sampler="euler", start=None):
    """SamplerCustom's way, in process."""
    import comfy.sample
    import comfy.samplers

    start = noise() if start is None else start
    chosen = comfy.samplers.sampler_object(sampler)
    return comfy.sample.sample_custom(
        model, start, cfg, chosen, cosine(), positive, negative, torch.zeros_like(start), disable_pbar=True, seed=0
    )


def assert_same(one, other, within=2e-6):
    assert torch.isfinite(one).all() and (one - other).abs().max() <= within * other.abs().max()


def differ(one, other):
    return (one - other).abs().max() > 1e-3 * other.abs().max()


def repeated(model, times: int, last: int):
    """A model that is given its last reference's tokens several times, at the same ids."""
    model = model.clone()

    def repeat(args):
        for name in ("img", "img_ids"):
            args[name] = torch.cat([args[name], *([args[name][:, -last:]] * (times - 1))], 1)
        return args

    model.set_model_patch(repeat, "post_input")
    return model


def test_strength_one_changes_not_a_bit(world, clean_memory):
    plain = world.heard({}, {})
    assert not any(world.attention.KEY in options.get("model_conds", {}) for _, options in plain)
    assert torch.equal(
        sample(world.model, world.heard({"strength": 1.0}, {}), world.negative()),
        sample(world.model, world.by_hand(world.latents[:2]), world.negative()),
    )


@pytest.mark.parametrize("strength", [2, 3])
def test_a_strength_of_two_is_the_same_reference_twice(world, strength, clean_memory):
    strong = sample(world.model, world.heard({}, {"strength": strength}), world.negative())
    tokens = world.latents[1].shape[-1] * world.latents[1].shape[-2] // 4
    many = repeated(world.model, strength, tokens)
    assert_same(strong, sample(many, world.by_hand(world.latents[:2]), world.negative()))
    assert differ(strong, sample(world.model, world.heard({}, {}), world.negative()))


def test_a_strength_of_zero_is_the_run_without_it(world, clean_memory):
    for silent in (0, 1):
        how = [{}, {}]
        how[silent] = {"strength": 0.0}
        rest = [latent for n, latent in enumerate(world.latents[:2]) if n != silent]
        assert torch.equal(
            sample(world.model, world.heard(*how), world.negative()),
            sample(world.model, world.by_hand(rest), world.negative()),
        )
    (only,) = world.heard({"strength": 0.0})
    assert "reference_latents" not in only[1] and "timestep_start" not in only[1]


@pytest.mark.parametrize("name", ["attention_basic", "attention_sub_quad", "attention_split", "attention_pytorch"])
def test_every_attention_function_of_a_cpu_gives_the_same(world, name, clean_memory, monkeypatch):
    import comfy.ldm.flux.math
    import comfy.ldm.modules.attention as functions

    how = ({"strength": 2.5, "region": world.region(0, 0.5)}, {"region": world.region(0.3, 1, 0.4)})
    expected = sample(world.model, world.heard(*how), world.negative())
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", getattr(functions, name))
    assert_same(sample(world.model, world.heard(*how), world.negative()), expected, 1e-5)


def test_positive_and_negative_of_other_strengths_run_in_one_call_as_apart(world, clean_memory):
    """Both sides with references, as the encode nodes of models with true CFG make them."""
    import comfy.patcher_extension

    calls = []

    def watch(executor, x, *args, **kwargs):
        calls.append(len(x))
        return executor(x, *args, **kwargs)

    model = world.model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "watch", watch)
    positive = world.heard({"strength": 2.0}, {"region": world.region(0, 0.5)})
    other = torch.randn(1, TOKENS, CONTEXT, generator=torch.Generator().manual_seed(4))
    negative = world.heard({"strength": 0.5}, {}, conditioning=[[other, world.positive()[0][1]]])
    together = sample(model, positive, negative, 3.0)
    assert calls == [2] * STEPS
    alone = sample(model, positive, negative, 1.0)
    assert calls[STEPS:] == [1] * STEPS

    class Apart(world.attention.RulesCond):
        def can_concat(self, other):
            return False

    for _, options in positive + negative:
        conds = options.get("model_conds", {})
        if world.attention.KEY in conds:
            options["model_conds"] = {**conds, world.attention.KEY: Apart(conds[world.attention.KEY].cond)}
    apart = sample(model, positive, negative, 3.0)
    assert calls[2 * STEPS :] == [1] * (2 * STEPS)
    assert_same(together, apart)
    assert differ(together, alone)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "uni_pc"])
def test_a_control_net_and_an_earlier_override_are_still_felt(world, comfy, sampler, clean_memory):
    import comfy.controlnet

    class Push(comfy.controlnet.ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            before = self.previous_controlnet
            if before is not None:
                before.get_control(x_noisy, t, cond, batched_number, transformer_options)
            tokens = x_noisy.shape[-1] * x_noisy.shape[-2] // 4
            push = torch.linspace(-1, 1, 128).expand(x_noisy.shape[0], tokens, 128)
            return {"input": [push], "output": []}

    how = ({"strength": 2.0}, {"region": world.region(0, 0.5)})
    upstream = world.heard(*how, conditioning=world.positive(control=Push()))
    downstream = world.heard(*how)
    for _, options in downstream:
        options["control"] = Push().set_previous_controlnet(options.get("control"))
    one = sample(world.model, upstream, world.negative(), sampler=sampler)
    assert torch.equal(one, sample(world.model, downstream, world.negative(), sampler=sampler))
    assert differ(one, sample(world.model, world.heard(*how), world.negative(), sampler=sampler))

    asked = []

    def earlier(function, *args, **kwargs):
        asked.append(args[0].shape)
        return function(*args, **kwargs)

    model = world.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = earlier
    assert torch.equal(one, sample(model, upstream, world.negative(), sampler=sampler))
    assert asked


def test_a_model_that_ignores_the_override_is_refused(world, clean_memory):
    """A loader that brings its own attention: the forward never asks ComfyUI's."""
    import comfy.patcher_extension

    def deaf(executor, x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs):
        options = {k: v for k, v in transformer_options.items() if k != "optimized_attention_override"}
        return executor(x, timestep, context, y, guidance, ref_latents, control, options, **kwargs)

    model = world.model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "deaf", deaf)
    with pytest.raises(world.error, match="ignores ComfyUI's attention override"):
        sample(model, world.heard({"strength": 2.0}), world.negative())
    sample(model, world.heard({}), world.negative())  # nothing asked, nothing refused


def test_a_region_outside_of_which_nobody_looks_is_a_hard_mask(world, clean_memory):
    whole = sample(world.model, world.heard({"region": world.region(0, 1)}), world.negative())
    assert torch.equal(whole, sample(world.model, world.by_hand(world.latents[:1]), world.negative()))
    left = sample(world.model, world.heard({"region": world.region(0, 0.5)}), world.negative())
    grey = sample(world.model, world.heard({"region": world.region(0, 1, 0.25)}), world.negative())
    quarter = sample(world.model, world.heard({"strength": 0.25}), world.negative())
    assert differ(left, whole) and differ(grey, whole)
    assert differ(grey, quarter)  # words see all of it


def test_odd_sizes_and_a_batch(world, clean_memory):
    how = ({"strength": 2.0}, {"region": world.region(0, 0.5)})
    for size in ((7, 11), (9, 5)):
        both = sample(world.model, world.heard(*how), world.negative(), start=noise(2, *size))
        for n in range(2):
            alone = sample(world.model, world.heard(*how), world.negative(), start=noise(2, *size)[n : n + 1])
            assert_same(both[n : n + 1], alone)


@pytest.mark.parametrize("late", ["drop", "zero", "keep"])
def test_rules_hold_in_every_stage_of_the_gate(world, late, clean_memory):
    """Equal to the stages by hand with the strength's copies, the stage of one token included."""
    gated = sample(world.model, world.heard({"strength": 2.0}, tau_1=0.9, tau_2=0.5, late=late), world.negative())
    silent = {
        "drop": (torch.zeros(1, 1, CONTEXT), torch.zeros(1, 768)),
        "zero": (torch.zeros_like(world.text), torch.zeros(1, 768)),
        "keep": (world.text, world.pooled),
    }[late]
    twice = repeated(world.model, 2, 6)
    levels, x = cosine(), noise()
    for step, sigma in enumerate(levels[:-1].tolist()):
        stage = world.core.Gate(0.9, 0.5).stage(sigma).name
        latents = [] if stage == "EARLY" else world.latents[:1]
        model = world.model if stage == "EARLY" else twice
        entry = world.by_hand(latents, silent if stage == "LATE" else None)
        x = one_step(model, x, levels[step : step + 2], entry, world.negative())
    assert_same(gated, x, 2e-5)


def one_step(model, x, levels, positive, negative):
    """One Euler step from x at levels[0], as core scales it."""
    import comfy.sample
    import comfy.samplers

    first = levels[0] == 1
    scaled = x if first else x / (1 - levels[0])
    start, latent = (scaled, torch.zeros_like(x)) if first else (torch.zeros_like(x), scaled)
    chosen = comfy.samplers.sampler_object("euler")
    done = comfy.sample.sample_custom(
        model, start, 1.0, chosen, levels, positive, negative, latent, disable_pbar=True, seed=0
    )
    return done if levels[1] == 0 else done * (1 - levels[1])


@pytest.mark.parametrize("seed", range(4))
def test_windows_are_bit_equal_to_choosing_by_hand(world, seed, clean_memory):
    draw = random.Random(seed)
    windows = []
    for _ in range(3):
        end, start = sorted(draw.uniform(0, 1.1) for _ in range(2))
        windows.append({"start": start, "end": end})
    gate = world.core.Gate(*sorted((draw.uniform(0, 1.1), draw.uniform(0, 1.1)), reverse=True), "keep")
    entries = world.heard(*windows, tau_1=gate.tau_1, tau_2=gate.tau_2, late="keep")

    def chosen(sigma: float):
        vae = gate.stage(sigma).vae
        return [one for one, w in zip(world.latents, windows) if vae and w["end"] <= sigma < w["start"]]

    for sampler in ("euler", "heun"):
        by_hand = sample_by_hand_at(
            world.model, lambda sigma: world.by_hand(chosen(sigma)), world.negative(), sampler, cosine(), noise()
        )
        assert torch.equal(sample(world.model, entries, world.negative(), sampler=sampler), by_hand)


def test_equal_neighbours_are_one_entry(world):
    assert len(world.heard({}, {}, tau_1=1.1, tau_2=0.0)) == 2  # core's own references, and above every sigma
    windows = [{"start": 0.8, "end": 0.3}] * 3
    assert len(world.heard(*windows)) == 3
    for sigma in torch.linspace(0, 1, 501).tolist():
        active = [
            options
            for _, options in world.heard({"start": 0.8}, {"end": 0.3}, tau_1=0.9, tau_2=0.5)
            if options.get("timestep_end", -1) <= sigma <= options.get("timestep_start", 2)
        ]
        assert len(active) == 1


def test_a_multigpu_clone_acts_like_its_original(world):
    carrier = world.attention.AttentionCarrier()
    clone = carrier.deepclone_multigpu("cpu", autoregister=True)
    assert carrier.multigpu_clones == {"cpu": clone} and carrier.get_instance_for_device("cpu") is clone
    assert carrier.get_models() == []


def sample_by_hand_at(model, entries_at, negative, sampler, sigmas, noise, cfg=1.0, seed=0):
    """One run in which a guider asks `entries_at(sigma)` for the positive at every evaluation of the model."""
    import comfy.samplers

    class ByHand(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006, core's signature
            guider = comfy.samplers.CFGGuider(model)
            guider.inner_set_conds({"positive": entries_at(float(timestep[0])), "negative": negative})
            conds = comfy.samplers.process_conds(
                self.inner_model, x, {k: [d.copy() for d in v] for k, v in guider.original_conds.items()}, x.device
            )
            return comfy.samplers.sampling_function(
                self.inner_model,
                x,
                timestep,
                conds["negative"],
                conds["positive"],
                self.cfg,
                model_options=model_options,
                seed=seed,
            )

    guider = ByHand(model)
    guider.set_cfg(cfg)
    guider.inner_set_conds({"positive": entries_at(float(sigmas[0])), "negative": negative})
    return guider.sample(
        noise,
        torch.zeros_like(noise),
        comfy.samplers.sampler_object(sampler),
        sigmas,
        disable_pbar=True,
        seed=seed,
    )


@pytest.fixture(scope="module")
def diffusers_flux(world, comfy):
    return in_diffusers(world.model)


def in_diffusers(model):
    """The same weights in diffusers."""
    import comfy.utils
    from diffusers import FluxTransformer2DModel

    theirs = model.model.diffusion_model
    made = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=128,
        num_attention_heads=1,
        joint_attention_dim=CONTEXT,
        pooled_projection_dim=768,
        guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )
    config = {"depth": 2, "depth_single_blocks": 2, "hidden_size": 128}
    source, state = theirs.state_dict(), {}
    for ours, name in comfy.utils.flux_to_diffusers(config, output_prefix="").items():
        if ours not in made.state_dict():
            continue
        if isinstance(name, str):
            state[ours] = source[name]
            continue
        key, part = name[0], name[1]
        value = source[key].narrow(*part) if part is not None else source[key]
        state[ours] = torch.cat(value.chunk(2)[::-1]) if len(name) > 2 else value
    made.load_state_dict(state)
    return made.eval()


HOW = {
    "strength": ({"strength": 2.0}, {"strength": 0.4}),
    "region": ({"region": (0.0, 0.5)}, {"region": (0.25, 1.0)}),
    "both": ({"strength": 3.0, "region": (0.0, 0.5)}, {"region": (0.25, 1.0, 0.3)}),
}


@pytest.mark.parametrize("name", HOW)
def test_both_hosts_give_the_same_latents(world, diffusers_flux, name, clean_memory):
    from squeeze_core.attention.regions import Region
    from squeeze_core.attention.rules import AttentionRules, ReferenceRule
    from squeeze_core.flux.conditioning import Conditioning
    from squeeze_core.flux.model import velocity
    from squeeze_core.flux.sampling import euler

    how = [{**one} for one in HOW[name]]
    rules = []
    for one in how:
        if "region" in one:
            one["region"] = world.region(*one["region"])
        mask = one["region"].mask if "region" in one else None
        region = None if mask is None else Region(mask=mask)
        rules.append(ReferenceRule(0, one.get("strength", 1.0), region))
    scaled = tuple((latent - 0.1159) * 0.3611 for latent in world.latents[:2])
    heard = Conditioning(world.text, world.pooled, 2.5, scaled, "uxo", rules=AttentionRules(tuple(rules)))
    levels = cosine()
    with torch.no_grad():
        ours = euler(lambda step, x: velocity(diffusers_flux, x, levels[step], heard), noise(), levels)
    theirs = sample(world.model, world.heard(*how), world.negative())
    assert_same(ours / 0.3611 + 0.1159, theirs)
    assert type(next(iter(diffusers_flux.attn_processors.values()))).__name__ == "FluxAttnProcessor"
