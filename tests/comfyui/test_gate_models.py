"""The gate on every architecture that reads reference pictures, against runs that are split by hand."""

import pytest
import torch
from test_gate import assert_same
from tiny_models import KINDS, TOKENS, tiny

STEPS = 6
LATE = ["drop", "zero", "keep", "null"]
IDS = [151644, 872, 198, *range(100, 105), 151645, 198, 151644, 77091, 198, 151669, 151673]


@pytest.fixture(scope="module", params=KINDS)
def world(request, pack, comfy):
    return World(pack, request.param)


class World:
    """A tiny model, texts of its width, references as it takes them, and the pack's gate."""

    def __init__(self, pack, name):
        self.name, self.kind = name, KINDS[name]
        self.model = tiny(self.kind)
        self.nodes = pack("nodes.gate")
        self.null_text = pack("nodes.late_text").NullText
        self.core = pack("squeeze_core.gate")
        draw = torch.Generator().manual_seed(1)
        self.noise = torch.randn(1, *self.kind.target, generator=draw)
        self.latents = [torch.randn(1, *shape, generator=draw) for shape in self.kind.references]
        if name == "hidream":
            self.latents = [torch.rand(1, 64, 96, 3, generator=draw)]
        sigmas = sigmas_of(self).tolist()
        self.taus = (sigmas[1] + sigmas[2]) / 2, (sigmas[3] + sigmas[4]) / 2
        self.texts = {side: self.text(draw, length) for side, length in (("p", TOKENS), ("n", 3), ("null", 2))}

    def text(self, draw, length):
        tokens = torch.randn(1, length, self.kind.width, generator=draw)
        options = {}
        if self.name == "flux":
            options["pooled_output"] = torch.randn(1, 768, generator=draw)
        if self.kind.mask:
            options["attention_mask"] = torch.ones(1, length, dtype=torch.long)
        if self.name == "hidream":
            options["text_input_ids"] = torch.tensor([IDS[:3] + IDS[3 : 1 + length] + IDS[8:]])
        if self.name == "zimage" and length > 2:  # the empty prompt is encoded without pictures
            around = [torch.randn(1, 4, self.kind.width, generator=draw) for _ in range(3)]
            options["reference_latents_text_embeds"] = around
        return tokens, options

    def seen(self):
        method = {} if self.kind.method is None else {"reference_latents_method": self.kind.method}
        return {"reference_latents": self.latents, **method}

    def entry(self, side):
        tokens, options = self.texts[side]
        return [[tokens, {**options, **self.seen()}]]

    def by_hand(self, side, late):
        """What each stage is to hear, written out."""
        tokens, options = self.texts[side]
        seen = self.seen()
        left, rest = tokens, dict(options)
        if late == "null":
            left, rest = self.texts["null"]
        elif late != "keep":
            left = torch.zeros_like(tokens) if late == "zero" else torch.zeros_like(tokens[:, :1])
            if "pooled_output" in rest:
                rest["pooled_output"] = torch.zeros(1, 768)
            if "attention_mask" in rest and late == "drop":
                rest["attention_mask"] = torch.ones(1, 1, dtype=torch.long)
            if "text_input_ids" in rest:
                rest["text_input_ids"] = torch.tensor([IDS[:3] + IDS[8:]])
            around = rest.pop("reference_latents_text_embeds", None)
            if around is not None and late == "zero":
                rest["reference_latents_text_embeds"] = [torch.zeros_like(text) for text in around]
        return {
            "early": [[tokens, options]],
            "middle": [[tokens, {**options, **seen}]],
            "late": [[left, {**rest, **seen}]],
        }

    def gated(self, late):
        null = self.null_text.of([list(self.texts["null"])]) if late == "null" else None
        gate = self.core.Gate(*self.taus, "drop" if late == "null" else late)
        return self.nodes.gated_sides(self.entry("p"), self.entry("n"), gate, null=null)


def sigmas_of(world, steps=STEPS):
    import comfy.samplers

    return comfy.samplers.calculate_sigmas(world.model.get_model_object("model_sampling"), "simple", steps)


def guided(world, sides, cfg, pick=None):
    """SamplerCustomAdvanced's way. pick: chooses each side's conditioning at every evaluation by the sigma."""
    import comfy.samplers

    class Guider(comfy.samplers.CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006, core's signature
            chosen = [self.conds[f"{side}{pick(float(timestep[0]))}" if pick else side] for side in ("p", "n")]
            return comfy.samplers.sampling_function(
                self.inner_model,
                x,
                timestep,
                chosen[1],
                chosen[0],
                self.cfg,
                model_options=model_options,
                seed=seed,
            )

    guider = Guider(world.model)
    guider.inner_set_conds(sides)
    guider.set_cfg(cfg)
    return guider.sample(
        world.noise,
        torch.zeros_like(world.noise),
        comfy.samplers.sampler_object("euler"),
        sigmas_of(world),
        disable_pbar=True,
        seed=0,
    )


def expected(world, late, cfg):
    gate = world.core.Gate(*world.taus)
    sides = {side + name: entry for side in "pn" for name, entry in world.by_hand(side, late).items()}
    return guided(world, sides, cfg, lambda sigma: gate.stage(sigma).name.lower())


@pytest.mark.parametrize("late", LATE)
def test_both_sides_equal_three_runs_split_by_hand(world, late, clean_memory):
    """Every late mode, at a CFG of 3: guider and KSampler."""
    import comfy.sample

    stages = {world.core.Gate(*world.taus).stage(float(sigma)) for sigma in sigmas_of(world)[:-1]}
    assert len(stages) == 3
    by_hand = expected(world, late, 3.0)
    positive, negative = world.gated(late)
    assert_same(guided(world, {"p": positive, "n": negative}, 3.0), by_hand)
    ksampler = comfy.sample.sample(
        world.model, world.noise, STEPS, 3.0, "euler", "simple", positive, negative,
        torch.zeros_like(world.noise), disable_pbar=True, seed=0,
    )  # fmt: skip
    assert_same(ksampler, by_hand)


def test_references_and_text_are_both_heard(world, clean_memory):
    """Else the equalities above would hold for a gate that does nothing."""
    kept, dropped = (expected(world, late, 3.0) for late in ("keep", "drop"))
    gate = world.core.Gate(1.1, 0.0, "keep")
    always = world.nodes.gated_sides(world.entry("p"), world.entry("n"), gate)
    never = [world.by_hand(side, "keep")["early"] for side in "pn"]
    runs = [kept, dropped, guided(world, dict(zip("pn", always)), 3.0), guided(world, dict(zip("pn", never)), 3.0)]
    for number, one in enumerate(runs):
        for other in runs[:number]:
            assert (one - other).abs().max() > 1e-4 * one.abs().max()
