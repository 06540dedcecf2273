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


def advanced(world, positive, negative, cfg):
    """The node SamplerCustomAdvanced itself."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    class Noise:
        seed = 0

        def generate_noise(self, latent):
            return world.noise

    guider = comfy.samplers.CFGGuider(world.model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    latent = {"samples": torch.zeros_like(world.noise)}
    euler = comfy.samplers.sampler_object("euler")
    return SamplerCustomAdvanced.execute(Noise(), guider, euler, sigmas_of(world), latent)[0]["samples"]


def expected(world, late, cfg):
    gate = world.core.Gate(*world.taus)
    sides = {side + name: entry for side in "pn" for name, entry in world.by_hand(side, late).items()}
    return guided(world, sides, cfg, lambda sigma: gate.stage(sigma).name.lower())


@pytest.mark.parametrize("late", LATE)
def test_both_sides_equal_three_runs_split_by_hand(world, late, clean_memory):
    """Every late mode, at a CFG of 3: guider, SamplerCustomAdvanced and KSampler."""
    import comfy.sample

    stages = {world.core.Gate(*world.taus).stage(float(sigma)) for sigma in sigmas_of(world)[:-1]}
    assert len(stages) == 3
    by_hand = expected(world, late, 3.0)
    positive, negative = world.gated(late)
    assert_same(guided(world, {"p": positive, "n": negative}, 3.0), by_hand)
    assert_same(advanced(world, positive, negative, 3.0), by_hand)
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


@pytest.fixture(scope="module")
def worlds(pack, comfy):
    made = {}
    return lambda name: made.setdefault(name, World(pack, name))


def plain(world, side, **options):
    tokens, own = world.texts[side]
    return [[tokens, {**own, **options}]]


def by_socket(world, pack, placement="auto", latents=None, model=None):
    references = pack("squeeze_core.references").References.of(
        world.latents if latents is None else latents, placement
    )
    gate = world.core.Gate(*world.taus, "keep")
    sides = plain(world, "p"), plain(world, "n")
    return world.nodes.gated_sides(*sides, gate, references, model=model)


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("name", ["flux2", "qwen", "krea2", "joy", "omnigen2", "boogu", "mage"])
def test_references_by_socket_equal_those_in_the_conditioning(worlds, pack, name, with_model, clean_memory):
    """Krea 2 too, to which auto gives a method that it honours."""
    world = worlds(name)
    sides = by_socket(world, pack, model=world.model.model if with_model else None)
    by_hand = {side: world.by_hand(side, "keep") for side in "pn"}
    if name == "krea2":
        for stages in by_hand.values():
            for stage in ("middle", "late"):
                stages[stage][0][1]["reference_latents_method"] = "index_timestep_zero"
    gate = world.core.Gate(*world.taus)
    stages = {side + stage: entry for side in "pn" for stage, entry in by_hand[side].items()}
    expect = guided(world, stages, 3.0, lambda sigma: gate.stage(sigma).name.lower())
    assert_same(guided(world, dict(zip("pn", sides)), 3.0), expect)


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("qwen", (1, 16, 4, 6)), ("krea2", (1, 16, 4, 6)), ("joy", (1, 16, 4, 6)), ("flux", (1, 16, 1, 4, 6))],
)
def test_latents_that_a_model_misreads_are_refused(worlds, pack, name, shape, with_model, clean_memory):
    world = worlds(name)
    error = pack("squeeze_core.errors").SqueezeError
    with pytest.raises(error, match="misreads these"):
        sides = by_socket(
            world, pack, latents=[torch.zeros(shape)], model=world.model.model if with_model else None
        )
        guided(world, dict(zip("pn", sides)), 1.0)


def test_uxo_on_a_model_that_takes_it_for_offset_is_said_once(worlds, pack, caplog, clean_memory):
    world = worlds("qwen")
    guided(world, dict(zip("pn", by_socket(world, pack, "uxo"))), 3.0)
    assert caplog.text.count("takes placement uxo for offset") == 1


def test_a_negative_without_references_falls_silent_with_the_positive(worlds, clean_memory):
    world = worlds("flux")
    gate = world.core.Gate(*world.taus, "drop")
    positive, negative = world.nodes.gated_sides(world.entry("p"), plain(world, "n"), gate)
    by_hand = {side: world.by_hand(side, "drop") for side in "pn"}
    for stage in by_hand["n"].values():
        for name in world.seen():
            stage[0][1].pop(name, None)
    stages = {side + stage: entry for side in "pn" for stage, entry in by_hand[side].items()}
    expect = guided(world, stages, 3.0, lambda sigma: gate.stage(sigma).name.lower())
    assert_same(guided(world, {"p": positive, "n": negative}, 3.0), expect)


def test_every_stage_has_an_entry_on_both_sides(worlds):
    world = worlds("qwen")
    for sigma in torch.linspace(0, 1, 501).tolist():
        for side in world.gated("drop"):
            active = [
                1
                for _, options in side
                if options.get("timestep_end", -1) <= sigma <= options.get("timestep_start", 2)
            ]
            assert len(active) == 1


def test_what_cannot_be_a_null_or_a_side_is_refused(worlds, pack):
    world = worlds("flux")
    error = pack("squeeze_core.errors").SqueezeError
    with pytest.raises(error, match="null has 2 entries"):
        world.null_text.of(plain(world, "null") * 2)
    with pytest.raises(error, match="null is 32 wide and the conditioning 64"):
        null = world.null_text.of([[torch.zeros(1, 2, 32), {}]])
        world.nodes.gated(world.entry("p"), world.core.Gate(*world.taus), null=null)
    with pytest.raises(error, match="negative has no entry"):
        world.nodes.gated_sides(world.entry("p"), [], world.core.Gate(*world.taus))


def test_the_second_output_blocks_where_no_negative_was_given(worlds):
    world = worlds("flux")
    node, arguments = world.nodes.TimestepGate, (0.9, 0.5, "keep", -1.0)
    alone = node.execute(world.entry("p"), *arguments).args
    both = node.execute(world.entry("p"), *arguments, negative=world.entry("n")).args
    assert "connect negative" in alone[1].message and len(alone[0]) == len(both[0]) == len(both[1]) == 3


def test_taus_of_a_size_are_shifted_to_the_picture_s(worlds, pack):
    """Odds of 19 and 17/3 at 512 px are doubled at 1024 px: 38/39 and 34/37."""
    nodes, error = worlds("flux").nodes, pack("squeeze_core.errors").SqueezeError
    latent = {"samples": torch.zeros(1, 16, 128, 128), "downscale_ratio_spacial": 8}
    wide = {"samples": torch.zeros(1, 128, 32, 128)}  # FLUX.2's, of the same area
    for given in (latent, wide, {"samples": torch.zeros(1, 16, 1, 128, 128)}):
        assert nodes.for_size(0.95, "512 px", given) == pytest.approx(38 / 39)
        assert nodes.for_size(0.85, "512 px", given) == pytest.approx(34 / 37)
        assert nodes.for_size(0.85, "1024 px", given) == pytest.approx(0.85)
        assert nodes.for_size(1.1, "512 px", given) == 1.1 and nodes.for_size(0.0, "512 px", given) == 0.0
    assert nodes.for_size(0.85, "as given", None) == 0.85
    with pytest.raises(error, match="Connect the sampler's latent"):
        nodes.for_size(0.85, "512 px", None)
    world = worlds("qwen")
    arguments = (world.entry("p"), 0.95, 0.85, "keep", -1.0)
    shifted = world.nodes.TimestepGate.execute(*arguments, tau_for="512 px", latent=latent).args[0]
    assert shifted[0][1]["timestep_end"] == pytest.approx(38 / 39)


@pytest.mark.parametrize("late", LATE)
def test_show_gate_draws_both_sides_of_every_model(world, pack, late):
    plots, core = pack("nodes.plots"), pack("squeeze_core.gate_rows")
    sides, sigmas = world.gated(late), sigmas_of(world)
    gate, names = world.core.Gate(*world.taus), []
    for side in sides:
        rows = [plots._row(number, *entry) for number, entry in enumerate(side, start=1)]
        names.append([stage.name for stage in core.step_stages(sigmas, rows)])
    heard = [gate.stage(float(sigma)).name for sigma in sigmas[:-1]]
    if late == "keep":
        heard = [name.replace("LATE", "MIDDLE") for name in heard]
    assert names == [heard, heard]
    alone = plots.ShowGate.execute(sides[0], sigmas).args[0]
    both = plots.ShowGate.execute(sides[0], sigmas, sides[1]).args[0]
    assert both.shape[1] == 2 * alone.shape[1] and both.shape[2] == alone.shape[2]


def test_a_negative_that_sees_references_elsewhere_is_warned_of(worlds, pack):
    world, plots, core = worlds("qwen"), pack("nodes.plots"), pack("squeeze_core.gate_rows")
    sigmas = sigmas_of(world)
    gated, _ = world.gated("keep")
    rows, ungated = (
        [plots._row(number, *entry) for number, entry in enumerate(side, start=1)]
        for side in (gated, world.entry("n"))
    )
    (warning,) = core.side_warnings(sigmas, rows, ungated)
    assert "Only one side sees references at steps 1" in warning
    assert core.side_warnings(sigmas, rows, rows) == []


def test_krea_2_hears_references_in_a_lone_stage_as_well(worlds, pack, clean_memory):
    world = worlds("krea2")
    references = pack("squeeze_core.references").References.of(world.latents)
    always = world.nodes.gated(
        plain(world, "p", timestep_start=1.0, timestep_end=0.0), world.core.Gate(1.1, 0.0, "keep"), references
    )
    assert len(always) == 1
    by_hand = world.by_hand("p", "keep")["middle"]
    by_hand[0][1]["reference_latents_method"] = "index_timestep_zero"
    negative = plain(world, "n")
    assert_same(guided(world, {"p": always, "n": negative}, 3.0), guided(world, {"p": by_hand, "n": negative}, 3.0))
