"""Core's EasyCache and LazyCache under the gate, on a tiny FLUX."""

import math

import pytest
import torch

THRESHOLD = 1.0  # random weights answer more wildly than trained ones
STEPS, SIDE, CONTEXT, TAU_1, TAU_2 = 28, 16, 64, 0.95, 0.85


@pytest.fixture(scope="module")
def world(pack, tiny_flux):
    return World(pack, tiny_flux(depth=2, single=2))


class World:
    """A tiny FLUX with a cache, a text, a reference, and the gate."""

    def __init__(self, pack, model):
        self.model = model
        self.gate, self.core = pack("nodes.gate"), pack("squeeze_core.gate")
        self.cache = pack("nodes.step_cache")
        self.references = pack("squeeze_core.references").References.of
        draw = torch.Generator().manual_seed(0)
        self.tokens = torch.randn(2, 5, CONTEXT, generator=draw)
        self.pooled = torch.randn(1, 768, generator=draw)
        self.latent = torch.randn(1, 16, 8, 8, generator=draw)

    def conditioning(self, side=0, **options):
        return [[self.tokens[side][None], {"pooled_output": self.pooled, "guidance": 2.5, **options}]]

    def gated(self, conditioning=None, late="keep"):
        gate = self.core.Gate(TAU_1, TAU_2, late)
        return self.gate.gated(conditioning or self.conditioning(), gate, self.references((self.latent,), "uxo"))

    def always(self, side=0):
        return self.conditioning(side, reference_latents=[self.latent], reference_latents_method="uxo")

    def sample(self, positive, negative=None, cfg=1.0, cache="EasyCache", schedule="simple", **how):
        """(latents, how many steps were skipped, the schedule, the sigmas at which the model ran)."""
        import comfy.patcher_extension
        import comfy.samplers
        from comfy_extras import nodes_easycache

        kinds = comfy.patcher_extension.WrappersMP
        model, ran = self.model.clone(), []

        # Core's EasyCache adds to the model's input in place, which in float32 is the sampler's own.
        def copied(executor, x, *args, **kwargs):
            return executor(x.clone(), *args, **kwargs)

        model.add_wrapper_with_key(kinds.DIFFUSION_MODEL, "copied", copied)
        if cache is not None:
            (model,) = getattr(nodes_easycache, f"{cache}Node").execute(model, THRESHOLD, 0.15, 0.95, False).args

        def watched(executor, x, timestep, *args, **kwargs):
            options = args[-1] if isinstance(args[-1], dict) else kwargs["transformer_options"]
            ran.append(float(options["sigmas"][0]))
            return executor(x, timestep, *args, **kwargs)

        model.add_wrapper_with_key(kinds.DIFFUSION_MODEL, "watched", watched)
        if schedule == "simple":
            sampling = model.get_model_object("model_sampling")
            sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS)
        else:
            sigmas = torch.cos(torch.arange(STEPS + 1) / STEPS * math.pi / 2)
            sigmas[-1] = 0
        guider = how.get("guider", comfy.samplers.CFGGuider)(model)
        guider.set_conds(positive, negative or self.conditioning(1))
        guider.set_cfg(cfg)
        start = torch.zeros(1, 16, SIDE, SIDE)
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
        chosen = comfy.samplers.sampler_object(how.get("sampler", "euler"))
        latents = guider.sample(noise, start, chosen, sigmas, disable_pbar=True, seed=0)
        return latents, STEPS - len(set(ran)), sigmas, sorted(set(ran), reverse=True)


def first_of_each_stage(sigmas):
    values = [float(sigma) for sigma in sigmas[:-1]]
    return [values[0], next(v for v in values if v < TAU_1), next(v for v in values if v < TAU_2)]


@pytest.mark.parametrize("schedule", ["simple", "cosine"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("sides", ["positive", "both"])
def test_easycache_skips_nine_tenths_of_the_steps_that_it_skips_without_the_gate(
    world, schedule, cfg, sides, clean_memory
):
    gated, always = [world.gated(), None], [world.always(), None]
    if sides == "both":
        gated[1], always[1] = world.gated(world.conditioning(1)), world.always(1)
    _, without, _, _ = world.sample(*always, cfg, schedule=schedule)
    _, skipped, sigmas, ran = world.sample(*gated, cfg, schedule=schedule)
    assert without >= 8 and skipped >= 0.9 * without
    assert set(first_of_each_stage(sigmas)) <= set(ran)


def test_without_handing_the_anchor_on_hardly_a_step_is_skipped(world, clean_memory, monkeypatch):
    """Core alone, so that the tests above measure what this pack does."""
    monkeypatch.setattr(world.cache, "follow", lambda options, parts: None)
    _, skipped, _, _ = world.sample(world.gated())
    assert skipped <= 5


def test_the_anchor_goes_on_where_the_negative_is_asked_first(world, clean_memory):
    """Core's DualCFGGuider asks the negative before the others."""
    import comfy.samplers

    class NegativeFirst(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006, core's signature
            sides = [self.conds["negative"], self.conds["positive"]]
            away, towards = comfy.samplers.calc_cond_batch(self.inner_model, sides, x, timestep, model_options)
            return away + (towards - away) * self.cfg

    always, both = (world.always(), world.always(1)), (world.gated(), world.gated(world.conditioning(1)))
    _, without, _, _ = world.sample(*always, 3.0, guider=NegativeFirst)
    for negative in (None, both[1]):
        _, skipped, sigmas, ran = world.sample(both[0], negative, 3.0, guider=NegativeFirst)
        assert skipped >= 0.9 * without
        assert set(first_of_each_stage(sigmas)) <= set(ran)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "uni_pc"])
def test_the_first_step_of_every_stage_is_computed(world, sampler, clean_memory):
    for cache in ("EasyCache", "LazyCache"):
        _, skipped, sigmas, ran = world.sample(world.gated(), cfg=3.0, cache=cache, sampler=sampler)
        assert skipped and set(first_of_each_stage(sigmas)) <= set(ran)


def test_two_entries_of_one_side_do_not_take_the_anchor_from_each_other(world, clean_memory):
    """As areas or Conditioning (Combine) make them; of other lengths, so that each is a call of its own."""
    short = [[world.tokens[1][None, :3], world.conditioning()[0][1]]]
    two = world.conditioning() + short
    always = [[tokens, {**options, **world.always()[0][1]}] for tokens, options in two]
    _, without, _, _ = world.sample(always)
    _, skipped, _, _ = world.sample(world.gated(two))
    assert skipped >= 0.9 * without


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_nothing_changes_without_a_cache(world, cfg, clean_memory):
    gated = world.gated(late="drop")
    bare = [
        [tokens, {name: value for name, value in options.items() if name not in ("control", "model_conds")}]
        for tokens, options in gated
    ]
    assert all("control" in options for _, options in gated)
    one, _, _, _ = world.sample(gated, cfg=cfg, cache=None)
    other, _, _, _ = world.sample(bare, cfg=cfg, cache=None)
    assert (one - other).abs().max() <= (0 if cfg == 1 else 1e-6 * other.abs().max())


def test_a_gated_conditioning_from_a_file_is_followed_as_before(world, pack, tmp_path, clean_memory):
    files = pack("nodes.conditioning_file")
    gated = world.gated(late="drop")
    files.save(tmp_path / "gated.cond.safetensors", gated)
    loaded = files.load(tmp_path / "gated.cond.safetensors")
    one, skipped, _, ran = world.sample(gated)
    other, _, _, also = world.sample(loaded)
    assert torch.equal(one, other) and ran == also and skipped
