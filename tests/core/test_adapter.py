"""The adapter file: the same bits back, or one sentence."""

import json
import os
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from squeeze_core import files
from squeeze_core.adapter import HEADER_KEY, AdapterConfig, load, read_config, save
from squeeze_core.dla import Aggregator, DLAConfig
from squeeze_core.errors import SqueezeError
from squeeze_core.flux import lora
from squeeze_core.flux.spec import DiTSpec
from squeeze_core.gate import Gate
from squeeze_core.lap import LAPConfig
from squeeze_core.mllm.backbone import MLLMIdentity

HIDDEN, LAYERS, CONTEXT, WIDTH = 16, 4, 12, 8
MLLM = MLLMIdentity(
    model_type="internvl", hidden_size=HIDDEN, layers=LAYERS, final_norm_hash="0123456789abcdef", name="a toy"
)
DIT = DiTSpec(width=WIDTH, double_blocks=2, single_blocks=3, context=CONTEXT)


def config(rank: int = 2, dla: dict | None = None, **changes) -> AdapterConfig:
    dla = {"lap": LAPConfig(heads=4), **(dla or {})}
    return AdapterConfig(
        mllm=MLLM,
        dit=DIT,
        dla=DLAConfig(hidden=HIDDEN, layers=LAYERS + 1, context=CONTEXT, **dla),
        lora_rank=rank,
        **changes,
    )


def random_lora(rank: int, dtype=torch.bfloat16) -> dict[str, torch.Tensor]:
    tensors = {}
    for module in lora.attention_modules(DIT.double_blocks, DIT.single_blocks) if rank else ():
        tensors[f"transformer.{module}.lora_A.weight"] = torch.randn(rank, WIDTH, dtype=dtype)
        tensors[f"transformer.{module}.lora_B.weight"] = torch.randn(WIDTH, rank, dtype=dtype)
    return tensors


def weights(settings_: AdapterConfig, dtype=torch.float32) -> dict[str, torch.Tensor]:
    state = Aggregator(settings_.dla).state_dict()
    return {key: torch.randn(tensor.shape).to(dtype) for key, tensor in state.items()}


@pytest.fixture
def good(tmp_path):
    """A sound file, its config and its tensors."""
    path, settings_ = tmp_path / "good.safetensors", config()
    tensors = {**weights(settings_), **random_lora(2)}
    own = {key: tensor for key, tensor in tensors.items() if not key.startswith("transformer.")}
    save(path, settings_, own, random_lora(2))
    return path, settings_


def rewritten(path, change, header=None) -> None:
    """The file again with tensors and header changed, past `save`'s own checks."""
    tensors = load_file(path)
    raw = json.loads(read_config(path).model_dump_json())
    change(tensors)
    if header:
        header(raw)
    save_file(tensors, path, metadata={HEADER_KEY: json.dumps(raw)})


def sets(key: str, value):
    return lambda mapping: mapping.__setitem__(key, value)


laps = st.builds(
    LAPConfig,
    heads=st.sampled_from([1, 2, 4]),
    blocks=st.integers(1, 3),
    mlp=st.booleans(),
    bottleneck=st.sampled_from([None, 8]),
    layer_embedding=st.booleans(),
    residual=st.booleans(),
)
dlas = st.fixed_dictionaries(
    {
        "variant": st.sampled_from(["dual", "last_layer", "blend_vit", "mix_vit"]),
        "text_layers": st.sampled_from(["all", "0-2", "1,3"]),
        "image_layers": st.sampled_from(["all", "4"]),
        "lap": laps,
    }
) | st.fixed_dictionaries({"variant": st.just("single"), "lap": laps})
configs = st.builds(
    config,
    rank=st.sampled_from([0, 1, 5]),
    dla=dlas,
    system_prompt=st.text(),
    tiles=st.integers(1, 12),
    pooled=st.sampled_from(["zeros", "clip_l"]),
    gate=st.builds(Gate, tau_1=st.floats(0.5, 1.1), tau_2=st.floats(0, 0.5), late=st.just("keep")),
    placement=st.sampled_from(["uxo", "offset", "index"]),
    guidance=st.floats(0, 10),
    trained_by=st.text(),
)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs, DTYPES, DTYPES)
def test_an_adapter_comes_back_bit_for_bit(tmp_path, settings_, dtype, lora_dtype):
    path = tmp_path / "adapter.safetensors"
    aggregator, tensors = weights(settings_, dtype), random_lora(settings_.lora_rank, lora_dtype)
    save(path, settings_, aggregator, tensors)
    loaded = load(path)
    assert loaded.config == settings_ == read_config(path)
    state = loaded.aggregator.state_dict()
    for mine, theirs in ((aggregator, state), (tensors, loaded.lora)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) and mine[key].dtype == theirs[key].dtype for key in mine)
    assert not loaded.aggregator.training
    assert not any(p.requires_grad or p.is_meta for p in loaded.aggregator.parameters())


def test_a_loaded_aggregator_gives_the_context_of_the_saved_one(tmp_path):
    settings_ = config()
    aggregator = Aggregator(settings_.dla)
    aggregator.load_state_dict(weights(settings_))
    save(tmp_path / "a.safetensors", settings_, aggregator.state_dict(), random_lora(2))
    states, mask = torch.randn(LAYERS + 1, 6, HIDDEN), torch.arange(6) < 2
    loaded = load(tmp_path / "a.safetensors").aggregator
    with torch.no_grad():
        assert torch.allclose(loaded(states, mask)[0], aggregator(states, mask)[0], rtol=1e-5, atol=1e-5)


def test_views_that_share_memory_are_saved_each_whole(tmp_path):
    settings_ = config()
    shared = torch.randn(WIDTH, 2).bfloat16()
    tensors = {k: (shared.T if ".lora_A." in k else shared) for k in random_lora(2)}
    save(tmp_path / "a.safetensors", settings_, weights(settings_), tensors)
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in load(tmp_path / "a.safetensors").lora.items())


def refused_or_sound(path) -> None:
    """Nothing but `SqueezeError` may come out of a damaged file."""
    try:
        load(path)
    except SqueezeError as error:
        assert 20 < len(str(error)) < 600


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1))
def test_a_truncated_file_is_refused_wherever_it_was_cut(good, share):
    path, _ = good
    data = path.read_bytes()
    cut = path.with_name("cut.safetensors")
    cut.write_bytes(data[: min(int(share**3 * len(data)), len(data) - 1)])
    for read in (load, read_config):
        with pytest.raises(SqueezeError):
            read(cut)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_in_the_header_never_raise_anything_else(good, data):
    path, _ = good
    raw = bytearray(path.read_bytes())
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, end - 1))] = data.draw(
            st.integers(0, 255) | st.sampled_from(list(b'0123456789eE-+."{}[],:\\ nN'))
        )
    broken = path.with_name("broken.safetensors")
    broken.write_bytes(raw)
    refused_or_sound(broken)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_absurd_values_in_the_config_never_raise_anything_else(good, data):
    path, settings_ = good
    raw = json.loads(settings_.model_dump_json())
    at = raw
    while isinstance(at, dict):
        key = data.draw(st.sampled_from(sorted(at)))
        where, at = at, at[key]
    where[key] = data.draw(
        st.sampled_from([None, -1, 0, 1, 2**31, 10**30, 1e308, "", "x", "0-3", "none", [], {}, True])
        | st.integers()
        | st.text(max_size=5)
    )
    odd = path.with_name("odd.safetensors")
    save_file(load_file(path), odd, metadata={HEADER_KEY: json.dumps(raw)})
    refused_or_sound(odd)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "1" * 5000, "[" * 100_000, '{"format": 1}', "{}"])
def test_a_header_entry_that_is_no_config_is_refused(good, text):
    path, _ = good
    save_file(load_file(path), path, metadata={HEADER_KEY: text})
    with pytest.raises(SqueezeError, match=r"good\.safetensors"):
        load(path)


def test_random_bytes_and_empty_files_are_refused(tmp_path):
    for data in (b"", b"\0", b"\0" * 8, b"\0" * 100, os.urandom(4096), struct.pack("<Q", 2) + b"{}"):
        (tmp_path / "x.safetensors").write_bytes(data)
        with pytest.raises(SqueezeError):
            load(tmp_path / "x.safetensors")


def test_a_header_that_claims_more_than_any_adapter_needs_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(SqueezeError, match="claims 1099511627776"):
        load(path)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", files.MAX_HEADER + 1) + b"{")
        file.truncate(8 + files.MAX_HEADER + 10)  # sparse: nothing of it is on the disk
    with pytest.raises(SqueezeError, match="header of 104857601 bytes"):
        load(path)


def test_a_git_lfs_pointer_is_recognised(tmp_path):
    path = tmp_path / "pointer.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SqueezeError, match="git lfs pull"):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        with pytest.raises(SqueezeError, match="There is no adapter"):
            load(path)


def test_a_safetensors_file_of_another_kind_is_told_apart(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SqueezeError, match=r"no Squeeze adapter.*models/loras"):
        load(tmp_path / "other.safetensors")


PROJECTOR, A, B = (
    "projector.linear.weight",
    "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
    "transformer.transformer_blocks.0.attn.to_q.lora_B.weight",
)
DAMAGE = {
    "nan": (sets(PROJECTOR, torch.full((CONTEXT, HIDDEN), torch.nan)), f"infinite numbers in {PROJECTOR}"),
    "inf": (sets(A, torch.full((2, WIDTH), torch.inf)), f"infinite numbers in {A}"),
    "integers": (sets(PROJECTOR, torch.zeros(CONTEXT, HIDDEN, dtype=torch.int8)), r"int8; float32"),
    "fp8": (sets(A, torch.zeros(2, WIDTH).to(torch.float8_e4m3fn)), r"float8_e4m3fn; float32"),
    "float64": (sets(A, torch.zeros(2, WIDTH, dtype=torch.float64)), r"float64; float32"),
    "shape": (sets(PROJECTOR, torch.zeros(CONTEXT + 1, HIDDEN)), r"\[13, 16\].*\[12, 16\]"),
    "missing": (lambda tensors: tensors.pop(PROJECTOR), f"lacks tensor {PROJECTOR}"),
    "unknown": (sets("dla.more", torch.zeros(1)), "unknown tensor dla.more"),
    "b alone": (lambda tensors: tensors.pop(A), f"{B} without {A}"),
    "a alone": (lambda tensors: tensors.pop(B), f"{A} without {B}"),
    "rank": (sets(A, torch.zeros(3, WIDTH)), r"\[3, 8\]; rank 2 and width 8 ask for \[2, 8\]"),
    "alpha": (sets(A.replace("lora_A.weight", "alpha"), torch.ones(1)), "no LoRA tensor"),
    "block": (sets(A.replace("blocks.0", "blocks.2"), torch.zeros(2, WIDTH)), "2 double and 3 single"),
    "single block": (
        sets("transformer.single_transformer_blocks.3.attn.to_q.lora_A.weight", torch.zeros(2, WIDTH)),
        "2 double and 3 single",
    ),
    "module": (sets(A.replace("to_q", "to_w"), torch.zeros(2, WIDTH)), "no LoRA tensor"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_tensor_is_refused_with_its_name_and_what_was_expected(good, damage):
    change, message = DAMAGE[damage]
    path, _ = good
    rewritten(path, change)
    with pytest.raises(SqueezeError, match=message):
        load(path)
    assert read_config(path)  # the header alone is sound


@pytest.mark.parametrize("damage", ["nan", "inf", "shape", "missing", "unknown", "b alone"])
def test_a_wrong_tensor_is_refused_before_anything_is_written(tmp_path, damage):
    settings_ = config()
    tensors = {**weights(settings_), **random_lora(2)}
    DAMAGE[damage][0](tensors)
    with pytest.raises(SqueezeError):
        save(tmp_path / "never.safetensors", settings_, tensors, {})
    assert list(tmp_path.iterdir()) == []


HEADERS = {
    "newer format": (sets("format", 2), r"format 2 .* format 1"),
    "no format": (lambda raw: raw.pop("format"), "format None"),
    "unknown field": (sets("colour", "red"), "wrong at colour"),
    "missing part": (lambda raw: raw.pop("mllm"), "wrong at mllm"),
    "thresholds": (lambda raw: raw["gate"].update(tau_1=0.1), r"tau_1 \(0.1\) is below tau_2"),
    "layers": (lambda raw: raw["dla"].update(layers=9), "dla.layers is 9 .* 5"),
    "hidden": (lambda raw: raw["mllm"].update(hidden_size=17), "dla.hidden is 16 .* 17"),
    "context": (lambda raw: raw["dit"].update(context=13), "dla.context is 12 .* 13"),
    "layers trained on": (lambda raw: raw["dla"].update(text_layers="0-40"), "0-4"),
    "variant": (lambda raw: raw["dla"].update(variant="last_layer"), "unknown tensor dla.image"),
    "lora rank": (sets("lora_rank", 0), "LoRA rank 0 and holds"),
    "heads": (lambda raw: raw["dla"]["lap"].update(heads=3), "3 heads"),
}


@pytest.mark.parametrize("change", HEADERS)
def test_a_wrong_header_is_refused_with_the_field_and_both_values(good, change):
    header, message = HEADERS[change]
    path, _ = good
    rewritten(path, lambda tensors: None, header)
    with pytest.raises(SqueezeError, match=message):
        load(path)


@pytest.mark.parametrize("fails", ["replace", "fsync", "save_file"])
def test_an_interrupted_save_leaves_the_good_file_and_nothing_else(good, monkeypatch, fails):
    path, settings_ = good
    before = path.read_bytes()

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch if fails == "save_file" else os, fails, interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(path, settings_, weights(settings_), random_lora(2))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_saved_adapter_has_the_permissions_of_any_new_file(good):
    path, _ = good
    plain = path.with_name("plain")
    plain.write_text("")
    assert path.stat().st_mode == plain.stat().st_mode


IDENTITY = MLLMIdentity("internvl", HIDDEN, LAYERS, "0123456789abcdef")


@pytest.mark.parametrize(
    "field, value",
    [
        ("model_type", "qwen2_5_vl"),
        ("hidden_size", 32),
        ("layers", 5),
        ("final_norm_hash", "fedcba9876543210"),  # all that tells Qwen2.5-VL-7B from InternVL3-8B
    ],
)
def test_another_mllm_is_refused_with_the_two_values_that_differ(field, value):
    settings_ = config()
    settings_.check_mllm(IDENTITY)
    settings_.check_states(IDENTITY.label)
    other = MLLMIdentity(**{**vars(IDENTITY), field: value})
    with pytest.raises(SqueezeError, match=rf"{field} {getattr(MLLM, field)}.*{field} {value}"):
        settings_.check_mllm(other)
    with pytest.raises(SqueezeError, match=other.label):
        settings_.check_states(other.label)


@pytest.mark.parametrize("field, value", [("width", 9), ("double_blocks", 1), ("single_blocks", 1), ("context", 1)])
def test_another_diffusion_model_is_refused_with_the_two_values_that_differ(field, value):
    settings_ = config()
    settings_.check_dit(DIT)
    with pytest.raises(SqueezeError, match=rf"{field} {getattr(DIT, field)}.*{field} {value}"):
        settings_.check_dit(DIT.model_copy(update={field: value}))


def test_attention_that_this_version_lacks_is_refused_by_name():
    config().check_attention()
    with pytest.raises(SqueezeError, match='"cached" attention'):
        config(attention="cached").check_attention()


# As 0.1.0 wrote it.
HEADER_OF_0_1_0 = (
    '{"format":1,"mllm":{"model_type":"internvl","hidden_size":16,"layers":4,"final_norm_hash":"0123456789abcdef",'
    '"name":"a toy"},"dit":{"architecture":"flux","width":8,"double_blocks":2,"single_blocks":3,"context":12,'
    '"name":""},"dla":{"hidden":16,"layers":5,"context":12,"variant":"dual","text_layers":"0-2",'
    '"image_layers":"all","lap":{"heads":4,"blocks":1,"mlp":false,"mlp_ratio":4.0,"bottleneck":null,'
    '"layer_embedding":false,"residual":false}},"prompt_template":"chatml-pictures-first-v1","system_prompt":"",'
    '"tiles":1,"pooled":"zeros","gate":{"tau_1":1.0,"tau_2":0.0,"late":"zero"},"placement":"uxo",'
    '"attention":"joint","guidance":2.5,"lora_rank":2,"trained_by":"a test"}'
)


def test_the_header_of_0_1_0_is_read_and_written_again_as_it_was():
    def known(new, old):
        """What was there before, of what is there now; later versions may add fields."""
        return {key: known(new[key], old[key]) for key in new if key in old} if isinstance(old, dict) else new

    old = json.loads(HEADER_OF_0_1_0)
    again = known(json.loads(AdapterConfig.model_validate(old).model_dump_json()), old)
    assert json.dumps(again, separators=(",", ":")) == HEADER_OF_0_1_0


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("gate", {"tau_3": 0.1}),
        ("gate", {"tau_1": 0.1, "tau_2": 0.5}),
        ("gate", {"late": "fade"}),
        ("mllm", {"heads": 4}),
        ("mllm", {"layers": 0}),
        ("dla", {"width": 4}),
    ],
)
def test_a_header_says_nothing_that_is_not_known_or_not_possible(good, part, change):
    path, _ = good
    rewritten(path, lambda tensors: None, lambda raw: raw[part].update(change))
    with pytest.raises(SqueezeError, match=f"is wrong at {part}"):
        read_config(path)
