"""X2I's aligner: its own forward, from its own files, and nothing else that goes by that name."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from squeeze_core import adapter as adapter_file
from squeeze_core import x2i
from squeeze_core.aligner import AlignerConfig, LayerConvolution
from squeeze_core.dla import Aggregator, DLAConfig
from squeeze_core.errors import SqueezeError
from squeeze_core.flux.spec import DiTSpec
from squeeze_core.layers import LayerSelection
from squeeze_core.mllm import load
from squeeze_core.mllm.reading import PLAIN, Reading
from squeeze_core.plots import plot_layers

from ..mllm import checkpoints
from ..x2i_files import random_state, reference

DIT = DiTSpec(width=8, double_blocks=1, single_blocks=1, context=24)
# Qwen2.5-VL 7B and 3B, InternVL2.5 4B and 1B, MiniCPM-o: layers as they are, a 64th of the width.
SIZES = {
    "7B": (29, 56, False),
    "3B": (37, 32, False),
    "4B": (37, 32, False),
    "1B": (25, 14, True),
    "MiniCPM": (29, 56, True),
}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return checkpoints.qwen(tmp_path_factory.mktemp("mllm") / "Qwen2.5-VL-7B-Instruct")


@pytest.fixture(scope="module")
def internvl(tmp_path_factory):
    return checkpoints.internvl(tmp_path_factory.mktemp("mllm") / "InternVL2_5-1B-MPO-hf")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "qwen2.5-vl-7b_proj.pt"
    torch.save(random_state(4, 32), path)
    return path


def read(path, mllm, **options):
    return x2i.read(path, mllm, dit=DIT, **options)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * other.abs().max())


@pytest.mark.parametrize("size", SIZES)
def test_context_and_pooled_vector_are_those_of_x2is_own_forward(size):
    layers, hidden, scaled = SIZES[size]
    state = random_state(layers, hidden, scaled=scaled)
    config = DLAConfig(
        hidden=hidden,
        layers=layers,
        context=24,
        variant="convolution",
        aligner=AlignerConfig(kernel=None if scaled else 5, inner=24, pooled=12),
    )
    aggregator = Aggregator(config)
    renamed = {x2i._NAMES[key]: tensor for key, tensor in state.items()}
    if scaled:
        renamed["dla.plane.scale.weight"] = renamed["dla.plane.scale.weight"].reshape(1, -1) / layers
    aggregator.load_state_dict(renamed)
    for tokens in (1, 3, 33, 70):
        states = torch.randn(layers, tokens, hidden)
        context, _ = aggregator(states, torch.rand(tokens) < 0.5)
        theirs, pooled = reference(state, states[None])
        assert close(context, theirs[0]) and close(aggregator.vector(context), pooled)


@pytest.mark.parametrize("wrap", ["bare", "module.", "state_dict"])
@pytest.mark.parametrize("scaled", [False, True])
def test_every_form_of_the_file_gives_the_same_adapter(tmp_path, qwen, internvl, wrap, scaled):
    state, mllm = random_state(4, 32, scaled=scaled), internvl if scaled else qwen
    given = {"bare": state, "module.": {f"module.{key}": tensor for key, tensor in state.items()}}.get(
        wrap, {"config": {"in_channels": 4, "use_t5": False}, "state_dict": state}
    )
    torch.save(given, tmp_path / "proj.pt")
    states = torch.randn(4, 40, 32)
    context, _ = read(tmp_path / "proj.pt", mllm).aggregator(states, torch.zeros(40, dtype=torch.bool))
    assert close(context, reference(state, states[None])[0][0])


def test_a_converted_file_loads_as_any_adapter_and_says_how_to_ask(tmp_path, file, qwen):
    out = tmp_path / "out.safetensors"
    x2i.convert(file, qwen, out, dit=DIT)
    loaded = adapter_file.load(out)
    config = loaded.config
    assert config.mllm == load(qwen).identity and loaded.lora == {} and config.lora_rank == 0
    assert (config.pooled, config.guidance, config.gate.late, config.tiles) == ("aligner", 3.5, "keep", 1)
    assert config.system_prompt == "You are a helpful assistant."
    assert config.reading == Reading(
        text="dictionary", picture_side=224, keep_shape=True, numbered=True, pad_to=512, pad_side="left"
    )
    assert "not on subjects" in config.trained_by
    before = read(file, qwen).aggregator.state_dict()
    assert all(torch.equal(before[key], value) for key, value in loaded.aggregator.state_dict().items())
    scripts = read(file, qwen, text="plain", picture="128", pad_side="right").config.reading
    assert scripts == Reading(picture_side=128, keep_shape=False, pad_to=512, pad_side="right")


def test_an_adapter_of_before_has_the_plain_reading():
    config = DLAConfig(hidden=8, layers=3, context=8)
    raw = json.loads(config.model_dump_json())
    del raw["aligner"]
    assert DLAConfig.model_validate(raw) == config
    assert adapter_file.AdapterConfig.model_fields["reading"].default == PLAIN


@pytest.mark.parametrize("kernel", [5, None])
def test_any_chunk_gives_the_plain_result(kernel):
    layer = LayerConvolution(6, AlignerConfig(kernel=kernel))
    states = torch.randn(6, 45, 20)
    kept = (torch.rand(6, 45) < 0.7).float()
    whole = layer(states, kept, chunk=45)
    for chunk in (1, 2, 3, 7, 44):
        assert torch.allclose(layer(states, kept, chunk=chunk), whole, atol=1e-6)


def test_zeroed_layers_are_as_states_of_zero():
    state = random_state(4, 32)
    config = DLAConfig(
        hidden=32, layers=4, context=24, variant="convolution", aligner=AlignerConfig(inner=24, pooled=12)
    )
    aggregator = Aggregator(config)
    aggregator.load_state_dict({x2i._NAMES[key]: tensor for key, tensor in state.items()})
    states, mask = torch.randn(4, 12, 32), torch.arange(12) < 5
    context, _ = aggregator(
        states, mask, text_layers=LayerSelection.parse("0-1"), image_layers=LayerSelection.parse("all")
    )
    zeroed = states.clone()
    zeroed[2:, 5:] = 0
    assert close(context, reference(state, zeroed[None])[0][0])


def test_the_plot_draws_a_weight_for_each_layer(file, qwen):
    aggregator = read(file, qwen).aggregator
    _, weights = aggregator(torch.randn(4, 6, 32), torch.zeros(6, dtype=torch.bool))
    kernel = torch.load(file, weights_only=True)["conv.weight"][0]
    assert torch.allclose(weights.text_direct, kernel.pow(2).sum((1, 2)).sqrt(), atol=1e-6)
    nothing = type(weights)(None, None, None, None)
    assert plot_layers(weights).tobytes() != plot_layers(nothing).tobytes()


class Harmful:
    def __reduce__(self):
        return (eval, ("open('harmed', 'w')",))


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_that_holds_code_is_refused_by_name_and_not_run(tmp_path, qwen, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "qwen_proj.pt"
    state = random_state(4, 32) | {"more": Harmful()}
    if form == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    with pytest.raises(SqueezeError, match=r"qwen_proj\.pt.*(eval|more than tensors)"):
        read(path, qwen)
    assert not (tmp_path / "harmed").exists()


def wrong_files(tmp_path):
    good = random_state(4, 32)
    yield "more_proj.pt", {**good, "epoch": 3}, "holds epoch as int"
    yield "lacks_proj.pt", {key: value for key, value in good.items() if key != "mlp.fc.1.weight"}, "lacks mlp.fc.1"
    yield "t5_proj.pt", {**good, "t5stack.block.0": torch.zeros(1)}, "unknown t5stack"
    yield "layers_proj.pt", random_state(5, 32), "5 states of width 32, and .* has 4 of width 32"
    yield "width_proj.pt", random_state(4, 16), "4 states of width 16, and .* has 4 of width 32"
    yield "context_proj.pt", random_state(4, 32, context=20), "width 20.*reads 24"
    yield "internvl_proj.pt", good, "InternVL2.5 by its name"
    yield "list.pt", [1, 2], "no dictionary of tensors"
    yield "shape_proj.pt", {**good, "mlp.layernorm.bias": torch.zeros(3)}, "norm.bias is"


@pytest.mark.parametrize("number", range(9))
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tmp_path, qwen, number):
    name, content, message = list(wrong_files(tmp_path))[number]
    torch.save(content, tmp_path / name)
    with pytest.raises(SqueezeError, match=message):
        read(tmp_path / name, qwen)


def test_what_is_no_file_of_tensors_at_all_is_refused(tmp_path, qwen, file):
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("hello there")
    (tmp_path / "cut.pt").write_bytes(file.read_bytes()[:900])
    save_file({"something": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"123")
    for name in ("empty.pt", "text.pt", "cut.pt", "other.safetensors", "cut.safetensors", "none.pt"):
        with pytest.raises(SqueezeError):
            read(tmp_path / name, qwen)
    with pytest.raises(SqueezeError, match="aligner"):
        read(tmp_path, qwen)


def test_another_model_in_the_mllms_place_is_refused(tmp_path, file):
    folder = tmp_path / "t5"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(SqueezeError, match="'t5'"):
        read(file, folder)
    with pytest.raises(SqueezeError, match="is a file, not a folder"):
        read(file, file)


def test_internvl_2_5_loads_as_internvl_3_does(internvl):
    assert load(internvl).identity.model_type == "internvl"


def test_an_option_that_is_none_is_refused(file, qwen):
    with pytest.raises(SqueezeError, match="picture"):
        read(file, qwen, picture="256")
