"""An adapter in ComfyUI: its LoRA by the core's loader, its aggregator in the core's memory, wrong ones refused."""

import logging

import pytest
import torch

WIDTH, CONTEXT, HIDDEN, STATES = 128, 64, 48, 5


@pytest.fixture(scope="module")
def make_adapter(pack):
    """An adapter for the tiny FLUX of conftest, random everywhere."""
    names = ("adapter", "dla", "flux.lora", "lap", "flux.spec", "mllm.backbone")
    adapter, dla, lora, lap, spec, backbone = (pack(f"squeeze_core.{name}") for name in names)

    def make(rank: int = 4, **changes):
        config = adapter.AdapterConfig(
            mllm=backbone.MLLMIdentity(
                model_type="internvl", hidden_size=HIDDEN, layers=STATES - 1, final_norm_hash="0" * 16
            ),
            dit=spec.DiTSpec(width=WIDTH, double_blocks=1, single_blocks=1, context=CONTEXT),
            dla=dla.DLAConfig(hidden=HIDDEN, layers=STATES, context=CONTEXT, lap=lap.LAPConfig(heads=3)),
            lora_rank=rank,
            **changes,
        )
        draw = torch.Generator().manual_seed(5)
        aggregator = dla.Aggregator(config.dla)
        for parameter in aggregator.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
        tensors = {}
        for module in lora.attention_modules(1, 1):
            tensors[f"transformer.{module}.lora_A.weight"] = torch.randn(rank, WIDTH, generator=draw) * 0.1
            tensors[f"transformer.{module}.lora_B.weight"] = torch.randn(WIDTH, rank, generator=draw) * 0.1
        return adapter.Adapter(config, aggregator.eval().requires_grad_(False), tensors)

    return make


@pytest.fixture(scope="module")
def save(pack, tmp_path_factory):
    def write(adapter):
        path = tmp_path_factory.mktemp("adapter") / "tiny.safetensors"
        pack("squeeze_core.adapter").save(path, adapter.config, adapter.aggregator.state_dict(), adapter.lora)
        return path

    return write


def weights(patcher) -> dict[str, torch.Tensor]:
    """All weights with every patch applied."""
    keys = patcher.model.state_dict()
    return {key: patcher.patch_weight_to_device(key, return_weight=True) for key in keys}


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_the_lora_is_what_comfyuis_own_loader_makes_of_the_same_file(
    pack, comfy, tiny_flux, make_adapter, save, strength
):
    """And nothing is left out: the file can be given to Load LoRA as it is."""
    import comfy.sd
    import comfy.utils

    model, adapter = tiny_flux(), make_adapter()
    ours = pack("nodes.lora").apply_lora(model, adapter, strength)
    file = comfy.utils.load_torch_file(str(save(adapter)), safe_load=True)
    stock, _ = comfy.sd.load_lora_for_models(model, None, file, strength, 0)
    plain = weights(model)
    changed = 0
    for key, value in weights(ours).items():
        assert torch.equal(value, weights(stock)[key]), key
        changed += not torch.equal(value, plain[key])
    assert changed == 5  # qkv and out of both streams, and the fused linear1


def test_the_lora_is_b_times_a(pack, tiny_flux, make_adapter):
    model, adapter = tiny_flux(), make_adapter()
    patched = weights(pack("nodes.lora").apply_lora(model, adapter, 0.7))
    plain = weights(model)
    key = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    for row, name in enumerate(("to_q", "to_k", "to_v")):
        prefix = f"transformer.transformer_blocks.0.attn.{name}"
        update = adapter.lora[f"{prefix}.lora_B.weight"] @ adapter.lora[f"{prefix}.lora_A.weight"]
        rows = slice(row * WIDTH, (row + 1) * WIDTH)
        assert torch.allclose(patched[key][rows], plain[key][rows] + 0.7 * update, atol=1e-5)


def test_a_model_of_another_shape_is_refused_with_both_values(pack, tiny_flux, make_adapter):
    error = pack("squeeze_core.errors").SqueezeError
    with pytest.raises(error, match=r"context 64.*context 32"):
        pack("nodes.lora").apply_lora(tiny_flux(context=32), make_adapter(), 1.0)
    with pytest.raises(error, match=r"double_blocks 1.*double_blocks 2"):
        pack("nodes.lora").apply_lora(tiny_flux(depth=2), make_adapter(), 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 96}, "channels 64.*channels 384.*Fill"),
        ({"in_channels": 32}, "channels 64.*channels 128.*Canny"),
        ({"guidance_embed": False}, "guidance True.*guidance False.*FLUX.1-schnell"),
    ],
)
def test_schnell_fill_canny_and_depth_are_refused(pack, comfy, tiny_flux, make_adapter, changes, message):
    """Detected by the core in files of their layouts."""
    import comfy.sd

    state = {key.removeprefix("diffusion_model."): value for key, value in tiny_flux().model.state_dict().items()}
    columns = 4 * changes.get("in_channels", 16)
    state["img_in.weight"] = torch.nn.functional.pad(state["img_in.weight"], (0, columns - 64))
    if not changes.get("guidance_embed", True):
        state = {key: value for key, value in state.items() if not key.startswith("guidance_in")}
    model = comfy.sd.load_diffusion_model_state_dict({key: value.clone() for key, value in state.items()})
    detected = model.model.model_config.unet_config
    assert {name: detected[name] for name in changes} == changes
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match=message):
        pack("nodes.lora").apply_lora(model, make_adapter(), 1.0)


def test_attention_that_this_version_lacks_is_refused_before_and_as_it_runs(
    pack, tiny_flux, make_adapter, save, monkeypatch
):
    path = save(make_adapter(attention="cached"))
    monkeypatch.setattr(pack("nodes.folders"), "adapter_path", lambda choice: path)
    node = pack("nodes.dla").LoadAdapter
    assert '"cached" attention' in node.validate_inputs("tiny.safetensors")
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match='"cached" attention'):
        node.execute(tiny_flux(), "tiny.safetensors", 1.0)


def test_the_loader_says_what_the_adapter_was_trained_with(pack, tiny_flux, make_adapter, save, monkeypatch):
    gate = pack("squeeze_core.gate").Gate(tau_1=0.9, tau_2=0.5, late="zero")
    given = make_adapter(gate=gate, guidance=3.5, tiles=4, system_prompt="You paint.", trained_by="a test")
    path = save(given)
    monkeypatch.setattr(pack("nodes.folders"), "adapter_path", lambda choice: path)
    text = pack("nodes.dla").LoadAdapter.execute(tiny_flux(), "tiny.safetensors", 1.0).ui.value
    for part in ("tau_1 0.9, tau_2 0.5, late zero", "3.5", "tiles: 4", "You paint.", "pooled: zeros", "a test"):
        assert part in text, text


def test_nunchaku_is_refused_and_told_why(pack, tiny_flux, make_adapter):
    model = tiny_flux()
    network = model.model.diffusion_model
    network.__class__ = type("ComfyFluxWrapper", (type(network),), {})
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match="Nunchaku"):
        pack("nodes.lora").apply_lora(model, make_adapter(), 1.0)


def test_aggregate_gives_context_null_and_weights(pack, make_adapter, clean_memory):
    adapter = make_adapter()
    hosted = pack("nodes.hosting").HostedDLA.from_adapter(adapter)
    mask = torch.tensor([False, True, True, False, False, True])
    states = pack("squeeze_core.mllm.states").LayerStates(
        torch.randn(STATES, 6, HIDDEN), mask, adapter.config.mllm.label
    )
    positive, negative, shares = pack("nodes.dla").Aggregate.execute(states, hosted, "all", "1-3").args
    ((context, options),) = positive
    assert context.shape == (1, 6, CONTEXT)
    assert options["pooled_output"].shape == (1, 768) and not options["pooled_output"].any()
    assert options["guidance"] == 2.5 and options["reference_latents_method"] == "uxo"
    selection = pack("squeeze_core.layers").LayerSelection
    direct, _ = adapter.aggregator(states.states, mask, image_layers=selection.parse("1-3"))
    assert torch.allclose(context[0], direct, atol=1e-6)
    ((null, options),) = negative
    assert null.shape == (1, 1, CONTEXT) and not null.any() and not options["pooled_output"].any()
    assert "reference_latents" not in options
    assert shares.text.shape == shares.image.shape == (STATES,)


def test_states_of_another_mllm_are_refused_with_both_names(pack, make_adapter):
    adapter = make_adapter()
    hosted = pack("nodes.hosting").HostedDLA.from_adapter(adapter)
    states = pack("squeeze_core.mllm.states").LayerStates(
        torch.randn(STATES, 2, HIDDEN), torch.tensor([False, True]), "qwen2_5_vl-4x48-ffff"
    )
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match=r"internvl-4x48-0000.*qwen2_5_vl-4x48-ffff"):
        pack("nodes.dla").Aggregate.execute(states, hosted, "all", "all")


@pytest.fixture
def aggregate(pack, clean_memory):
    """(adapter, fields of the states, clip_l) -> what Aggregate gives."""

    def run(adapter, *, clip_l=None, picture: bool = True, **fields):
        hosted = pack("nodes.hosting").HostedDLA.from_adapter(adapter)
        states = pack("squeeze_core.mllm.states").LayerStates(
            torch.randn(STATES, 2, HIDDEN),
            torch.tensor([False, picture]),
            adapter.config.mllm.label,
            **fields,
        )
        return pack("nodes.dla").Aggregate.execute(states, hosted, "all", "all", clip_l).args

    return run


def test_states_of_other_settings_than_the_adapters_are_warned_of(aggregate, make_adapter, caplog):
    adapter = make_adapter(tiles=4, system_prompt="You paint.")
    with caplog.at_level(logging.WARNING):
        aggregate(adapter, tiles=4, system_prompt="You paint.")
        aggregate(adapter)  # unknown
        aggregate(adapter, tiles=1, system_prompt="You paint.", picture=False)  # no picture to cut into tiles
        assert not caplog.records
        aggregate(adapter, tiles=1, system_prompt="")
    (record,) = caplog.records
    assert 'tiles is 1, and the adapter was trained with 4; system_prompt is ""' in record.getMessage()
    assert '"You paint."' in record.getMessage() and "Encode Text and Pictures" in record.getMessage()


def clip(width: int) -> list:
    return [[torch.zeros(1, 77, 768), {"pooled_output": torch.arange(width, dtype=torch.float32)[None]}]]


def test_a_pooled_vector_is_asked_for_when_it_was_trained_with(pack, aggregate, make_adapter):
    adapter = make_adapter(pooled="clip_l")
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match="CLIP"):
        aggregate(adapter)
    for width in (768, 2048):  # SD3's begins with CLIP-L's
        positive, _, _ = aggregate(adapter, clip_l=clip(width))
        assert torch.equal(positive[0][1]["pooled_output"], clip(768)[0][1]["pooled_output"])


def test_a_pooled_vector_that_does_not_fit_is_refused(pack, aggregate, make_adapter):
    error = pack("squeeze_core.errors").SqueezeError
    with pytest.raises(error, match=r"pooled vector of zeros\. Disconnect clip_l"):
        aggregate(make_adapter(), clip_l=clip(768))
    with pytest.raises(error, match="pooled vectors of 1280 and FLUX takes 768"):  # SDXL's is CLIP-G's alone
        aggregate(make_adapter(pooled="clip_l"), clip_l=clip(1280))
