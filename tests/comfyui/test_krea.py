"""Layers of Krea 2's conditioning: core's own tokenizer, text encoder and model, tiny and random."""

import pytest
import torch

HIDDEN = 128
PLUS, EDIT = "TextEncodeQwenImageEditPlus", "TextEncodeQwenImageEdit"


@pytest.fixture(scope="module")
def krea(pack):
    return pack("nodes.krea")


@pytest.fixture(scope="module")
def select(pack):
    return pack("squeeze_core.layers").LayerSelection.parse


@pytest.fixture(scope="module")
def error(pack):
    return pack("squeeze_core.errors").SqueezeError


@pytest.fixture(scope="module")
def clip(comfy):
    """Krea 2's tokenizer, and its text encoder with layers that are 128 wide."""
    import comfy.text_encoders.krea2 as core
    import comfy.text_encoders.qwen3vl as qwen

    class Clip:
        def __init__(self):
            self.tokenizer = core.Krea2Tokenizer()
            small = {"hidden_size": HIDDEN, "intermediate_size": 64, "num_attention_heads": 1}
            small |= {"num_key_value_heads": 1, "vocab_size": 151936}
            options = {"qwen3vl_4b_model_config": small}
            with pytest.MonkeyPatch.context() as patch:
                vision = {
                    "hidden_size": 64,
                    "intermediate_size": 64,
                    "depth": 3,
                    "deepstack_visual_indexes": [0, 1],
                }
                patch.setitem(qwen.QWEN3VL_VISION, "qwen3vl_4b", vision)
                self.model = core.Krea2TEModel(dtype=torch.float32, model_options=options)
            draw = torch.Generator().manual_seed(0)
            for weight in self.model.parameters():
                weight.data = torch.randn(weight.shape, generator=draw) * 0.02

        def tokenize(self, text, **kwargs):
            return self.tokenizer.tokenize_with_weights(text, **kwargs)

        def encode_from_tokens_scheduled(self, tokens):
            self.model.set_clip_options({"execution_device": torch.device("cpu")})
            with torch.no_grad():
                out, _, _ = self.model.encode_token_weights(tokens)
                pairs = [[token for token, *_ in row] for row in tokens["qwen3vl_4b"]]
                embedded, _, _, info = self.model.qwen3vl_4b.process_tokens(pairs, torch.device("cpu"))
            self.truth = torch.zeros(embedded.shape[1], dtype=torch.bool)
            for one in info:
                if one["type"] == "image":
                    self.truth[one["index"] : one["index"] + one["size"]] = True
            self.truth = self.truth[len(self.truth) - out.shape[1] :]
            return [[out, {}]]

    return Clip()


def pictures(*sizes):
    draw = torch.Generator().manual_seed(1)
    return [torch.rand(1, *size, 3, generator=draw) for size in sizes]


@pytest.mark.parametrize(
    ("node", "prompt", "sizes"),
    [
        (PLUS, "a cat", [(64, 96)]),
        (PLUS, "the hat of picture 1 on picture 2, " * 20, [(90, 64), (64, 64)]),
        (EDIT, "a cat", [(32, 48)]),
    ],
    ids=["one picture", "two pictures and many words", "the node before"],
)
def test_picture_tokens_are_where_core_put_them(krea, clip, node, prompt, sizes):
    from comfy_extras import nodes_qwen

    given = pictures(*sizes)
    ((tokens, _),) = getattr(nodes_qwen, node).execute(clip, prompt, None, *given).args[0]
    where = krea.picture_tokens(clip, prompt, given, tokens.shape[1])
    assert torch.equal(where, clip.truth) and where.any() and not where.all()


def test_a_prompt_alone_has_no_picture_tokens(krea, clip):
    ((tokens, _),) = clip.encode_from_tokens_scheduled(clip.tokenize("a cat"))
    assert not krea.picture_tokens(clip, "a cat", [], tokens.shape[1]).any()


def test_layers_go_apart_for_text_and_pictures_and_the_rest_keeps_every_bit(krea, select):
    tokens = torch.randn(2, 5, 12 * HIDDEN, generator=torch.Generator().manual_seed(0))
    where = torch.tensor([False, True, True, False, False])
    made = krea.selected(tokens, where, select("0-9"), select("10-19,35")).unflatten(-1, (12, HIDDEN))
    before = tokens.unflatten(-1, (12, HIDDEN))
    for layer, tap in enumerate(krea.TAPS):
        for token, picture in enumerate(where):
            stays = (10 <= tap <= 19 or tap == 35) if picture else tap <= 9
            expected = before[:, token, layer] if stays else torch.zeros(2, HIDDEN)
            assert torch.equal(made[:, token, layer], expected)
    assert torch.equal(krea.selected(tokens, where, select("all"), select("all")), tokens)
    assert not krea.selected(tokens, where, select("none"), select("none")).any()


def test_the_node_keeps_options_and_needs_no_clip_where_both_sides_are_alike(krea):
    tokens = torch.randn(1, 3, 12 * krea.WIDTH, generator=torch.Generator().manual_seed(0))
    options = {"reference_latents": [torch.zeros(1, 16, 1, 8, 8)], "reference_latents_method": "index"}
    ((made, kept),) = krea.SelectLayers.execute([[tokens, options]], "5", "5").args[0]
    assert torch.equal(made[..., krea.WIDTH : 2 * krea.WIDTH], tokens[..., krea.WIDTH : 2 * krea.WIDTH])
    assert made.count_nonzero() == tokens[..., krea.WIDTH : 2 * krea.WIDTH].count_nonzero()
    assert kept == options


def test_what_does_not_fit_is_refused(krea, clip, error):
    right = torch.zeros(1, 3, 12 * krea.WIDTH)
    with pytest.raises(error, match=r"Select Layers takes Krea 2's"):
        krea.SelectLayers.execute([[torch.zeros(1, 3, 4096), {}]], "all", "all")
    with pytest.raises(error, match="nothing says which tokens are pictures"):
        krea.SelectLayers.execute([[right, {}]], "all", "none")
    with pytest.raises(error, match="the conditioning has 3"):
        krea.SelectLayers.execute([[right, {}]], "all", "none", clip, "a cat", {"picture_1": pictures((64, 64))[0]})
    assert "Layer 37 does not exist" in krea.SelectLayers.validate_inputs("0-37", "all")


def test_the_output_feeds_gate_and_sampler_and_show_layers(
    pack, comfy, krea, select, error, clean_memory, monkeypatch
):
    import comfy.model_patcher
    import comfy.sample
    import comfy.samplers
    import comfy.supported_models

    config = {"image_model": "krea2", "features": 128, "tdim": 64, "txtdim": 64, "heads": 2, "kvheads": 1}
    config |= {"multiplier": 2, "layers": 2, "txtlayers": 12, "txtheads": 2, "txtkvheads": 2}
    settings = comfy.supported_models.Krea2(config)
    settings.set_inference_dtype(torch.float32, None)
    model = settings.get_model({}, "", device=torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    for weight in model.diffusion_model.parameters():
        weight.data = torch.randn(weight.shape, generator=draw) * weight.shape[-1] ** -0.5
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patched = patcher(model.eval(), load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    gate, core = pack("nodes.gate"), pack("squeeze_core.gate")
    tokens = torch.randn(1, 6, 12 * 64, generator=draw)
    options = {
        "reference_latents": [torch.randn(1, 16, 1, 4, 4, generator=draw)],
        "reference_latents_method": "index",
    }
    where = torch.tensor([False, True, True, True, False, False])

    def run(text, image):
        chosen = krea.selected(tokens, where, select(text), select(image))
        gated = gate.gated([[chosen, options]], core.Gate(0.95, 0.5, "keep"))
        start = torch.zeros(1, 16, 1, 8, 8)
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
        sigmas = torch.cos(torch.arange(7) / 6 * torch.pi / 2).clamp(0, 1)
        euler = comfy.samplers.sampler_object("euler")
        return comfy.sample.sample_custom(
            patched, noise, 1.0, euler, sigmas, gated, gated, start, disable_pbar=True, seed=0
        )

    everything = run("all", "all")
    fusion = model.diffusion_model.txtfusion
    weights = krea.layer_weights(patched, tokens, where)
    # By hand, of the second block's own projections.
    with torch.no_grad():
        x = fusion.layerwise_blocks[0](tokens.reshape(6, 12, 64))
        attention = fusion.layerwise_blocks[1].attn
        normed = fusion.layerwise_blocks[1].prenorm(x)
        q, k = (w(normed).unflatten(-1, (2, 32)).transpose(1, 2) for w in (attention.wq, attention.wk))
        q, k = attention.qknorm(q, k)
        seen = (q @ k.transpose(-1, -2) / 32**0.5).softmax(-1).mean(1)
        by_hand = torch.einsum("i,tij->tj", fusion.projector.weight[0], seen)
    assert torch.allclose(weights.text, by_hand[~where].mean(0), atol=1e-5)
    assert torch.allclose(weights.image, by_hand[where].mean(0), atol=1e-5)
    assert torch.allclose(weights.text_direct, fusion.projector.weight[0])
    assert torch.equal(run("all", "all"), everything)
    monkeypatch.setattr(krea, "WIDTH", 64)
    shown = krea.weights_of(patched, [[tokens, {krea.MARKED: where}]])
    assert torch.equal(shown.image[list(krea.TAPS)], weights.image) and len(shown.text) == 37
    show = pack("nodes.plots").ShowLayers
    assert show.execute(model=patched, conditioning=[[tokens, {}]]).args[0].shape[2] == 1024
    with pytest.raises(error, match="Nothing to show"):
        show.execute(model=patched)
    for text, image in (("all", "none"), ("0-9", "all"), ("0-9", "20-28")):
        other = run(text, image)
        assert torch.isfinite(other).all() and (other - everything).abs().max() > 1e-3 * everything.abs().max()
