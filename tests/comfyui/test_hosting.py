"""The MLLM under ComfyUI's memory manager: same states, whole, in parts or paged, and gone when told to go."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from comfy_mllm import FAMILIES, PICTURES, loaded, plain


@pytest.fixture
def hosting(pack, clean_memory):
    return pack("nodes.hosting")


@pytest.mark.parametrize("family", FAMILIES)
def test_hosted_states_are_the_plain_ones_bit_for_bit(pack, hosting, folders, prompt, family):
    expected = plain(pack, folders[family]).encode(prompt)
    states = hosting.load_mllm(folders[family]).encode(prompt)
    assert torch.equal(states.states, expected.states)
    assert torch.equal(states.image_mask, expected.image_mask) and states.image_tokens > 0
    assert states.model_id == expected.model_id


@pytest.mark.parametrize("family", FAMILIES)
def test_hosted_answer_is_the_plain_one(pack, hosting, folders, prompt, family):
    expected = plain(pack, folders[family]).generate(prompt, max_new_tokens=8)
    assert hosting.load_mllm(folders[family]).generate(prompt, max_new_tokens=8) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_hosted_answers_of_a_schema_are_the_plain_ones(pack, hosting, folders, prompt, family):
    schema = {"type": "array", "items": {"enum": list(range(9))}, "minItems": 3, "maxItems": 3}
    options = {"seeds": (1, 2), "temperature": 1.0, "words": 5}
    expected = plain(pack, folders[family]).generate_json(prompt, schema, **options)
    assert hosting.load_mllm(folders[family]).generate_json(prompt, schema, **options) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_swapping_layers_changes_only_their_class(pack, hosting, folders, family):
    paging = pack("nodes.paging")
    model = plain(pack, folders[family]).model
    before = {key: (value.dtype, value.data_ptr()) for key, value in model.state_dict().items()}
    classes = {name: type(module) for name, module in model.named_modules()}
    paging.swap_layers(model)
    paging.swap_layers(model)  # twice is once
    after = {key: (value.dtype, value.data_ptr()) for key, value in model.state_dict().items()}
    assert after == before
    for name, module in model.named_modules():
        assert isinstance(module, classes[name]) or classes[name].__name__ == "CastLinear"
        if list(module.parameters(recurse=False)) and not list(module.children()):
            assert hasattr(module, "comfy_cast_weights"), f"{name} ({classes[name].__name__}) was not swapped"


def test_fp8_weights_give_close_states(pack, hosting, folders, prompt):
    """A tiny random model; what is stored in 8 bits is cast as it is used and stays in 8 bits."""
    folder = folders["internvl with layer norm"]
    exact = plain(pack, folder).encode(prompt).states
    hosted = hosting.load_mllm(folder, "fp8_e4m3fn")
    states = hosted.encode(prompt).states
    assert torch.equal(states, plain(pack, folder, "fp8_e4m3fn").encode(prompt).states)
    assert torch.isfinite(states).all()
    error = ((states - exact).norm() / exact.norm()).item()
    assert 0 < error < 0.2
    dtypes = {p.dtype for p in hosted.model.model.language_model.layers[0].self_attn.q_proj.parameters()}
    assert torch.float8_e4m3fn in dtypes


def test_norms_keep_their_float32_order_and_dtype(pack):
    """A float32 norm weight makes a float32 result of a bfloat16 input: core's own RMSNorm would not."""
    paging = pack("nodes.paging")
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    norm = Qwen2RMSNorm(64)
    norm.weight.data = torch.rand(64)
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    expected = norm(x)
    swapped = paging.swap_layers(torch.nn.Sequential(norm))
    assert torch.equal(swapped(x), expected) and swapped(x).dtype == expected.dtype
    assert "weight" not in vars(norm) and type(norm).__name__ == "Qwen2RMSNorm"


def test_the_aggregator_hosted_gives_the_plain_context(pack, hosting):
    dla, states_module = pack("squeeze_core.dla"), pack("squeeze_core.mllm.states")
    lap = pack("squeeze_core.lap").LAPConfig(heads=2, layer_embedding=True, mlp=False, blocks=2)
    config = dla.DLAConfig(hidden=64, layers=4, context=48, lap=lap)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        aggregator = dla.Aggregator(config).requires_grad_(False).eval()
        for parameter in aggregator.parameters():
            parameter.data = torch.randn(parameter.shape) * 0.1
        states = torch.randn(4, 10, 64)
    layer_states = states_module.LayerStates(states, torch.arange(10) > 6, "some mllm")
    expected, weights = aggregator(states, layer_states.image_mask)

    class AnyMLLM:
        def check_states(self, model_id: str) -> None:
            assert model_id == "some mllm"

    hosted = hosting.HostedDLA(aggregator, AnyMLLM())
    context, hosted_weights = hosted.aggregate(layer_states)
    assert torch.equal(context, expected)
    assert torch.equal(hosted_weights.image, weights.image)


# The memory manager's list.


def test_mllm_is_in_the_memory_managers_list_and_leaves_it(hosting, clean_memory, folders, prompt):
    hosted = hosting.load_mllm(folders["qwen2.5-vl"])
    assert loaded(clean_memory) == []
    hosted.encode(prompt)
    assert loaded(clean_memory) == [hosted.patcher]
    clean_memory.unload_all_models()
    assert loaded(clean_memory) == [] and hosted.patcher.loaded_size() == 0
    hosted.encode(prompt)  # and comes back
    assert loaded(clean_memory) == [hosted.patcher]


def test_the_head_is_loaded_for_answers_only(hosting, clean_memory, folders, prompt):
    hosted = hosting.load_mllm(folders["qwen2.5-vl"])
    hosted.encode(prompt)
    assert hosted.head_patcher not in loaded(clean_memory)
    hosted.generate(prompt, max_new_tokens=1)
    assert hosted.head_patcher in loaded(clean_memory) and hosted.patcher in loaded(clean_memory)
    assert hosted.get_models() == [hosted.patcher, hosted.head_patcher]
    assert hosting.load_mllm(folders["internvl tied"]).head_patcher is None


def test_tied_weights_are_counted_once(hosting, folders):
    hosted = hosting.load_mllm(folders["internvl tied"])
    assert hosted.patcher.model_size() == sum(p.nbytes for p in hosted.model.parameters())


def test_two_loaders_of_one_file_share_the_model(hosting, folders):
    folder = folders["internvl tied"]
    first = hosting.load_mllm(folder)
    assert hosting.load_mllm(str(folder) + "/") is first
    assert hosting.load_mllm(folder, "fp16") is not first
    assert hosting.load_mllm(folder, device="cpu") is not first


def test_a_dropped_mllm_is_freed(hosting, clean_memory, folders, prompt):
    hosted = hosting.load_mllm(folders["internvl with rms norm"])
    hosted.encode(prompt)
    weight = weakref.ref(hosted.model.model.language_model.layers[0].mlp.up_proj.weight)
    del hosted
    gc.collect()
    clean_memory.cleanup_models()
    assert weight() is None and clean_memory.current_loaded_models == []


def test_hosting_makes_no_second_copy_of_the_weights(pack, hosting, folders, prompt):
    backbone = plain(pack, folders["qwen2.5-vl"])
    before = {p.data_ptr() for p in backbone.model.parameters()}
    hosted = hosting.HostedMLLM(backbone)
    hosted.encode(prompt)
    assert {p.data_ptr() for p in backbone.model.parameters()} == before


def test_what_is_paged_stays_in_the_cache_when_main_memory_is_short(
    comfy, pack, hosting, folders, prompt, monkeypatch
):
    """On a GPU with the dynamic patcher ComfyUI's cache spares the models of the graph that runs."""
    from types import SimpleNamespace

    import comfy.model_patcher
    from comfy_execution import caching

    class Dynamic(comfy.model_patcher.ModelPatcher):
        def is_dynamic(self):
            return True

    def left(outputs: list) -> list:
        cache = caching.RAMPressureCache(caching.CacheKeySetInputSignature)
        cache.generation = 1
        for number, output in enumerate(outputs):
            cache.cache[number] = SimpleNamespace(outputs=[[output]])
            cache.used_generation[number], cache.timestamps[number], cache.children[number] = 1, 1.0, []
        monkeypatch.setattr(caching.psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
        cache.ram_release(1 << 40, free_active=True)
        return [outputs[number] for number in cache.cache]

    def both() -> list:
        mllm = hosting.HostedMLLM(plain(pack, folders["qwen2.5-vl"]))
        return [mllm, hosting.HostedDLA(torch.nn.Linear(2, 2), None)]

    assert left(both()) == []
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", Dynamic, raising=False)
    dynamic = both()
    assert left(dynamic) == dynamic


# Interrupts.


class Stop(BaseException):
    pass


def hooks_of(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_raise_while_encoding_leaves_nothing_behind(hosting, folders, prompt, at):
    hosted = hosting.load_mllm(folders["internvl with rms norm"])
    expected, hooks = hosted.encode(prompt).states, hooks_of(hosted.model)

    def stop(done: int, total: int) -> None:
        if done == at:
            raise Stop

    with pytest.raises(Stop):
        hosted.encode(prompt, progress=stop)
    assert hooks_of(hosted.model) == hooks
    for module in hosted.model.modules():
        assert "weight" not in vars(module)
    assert torch.equal(hosted.encode(prompt).states, expected)


def test_the_interrupt_button_stops_encoding_and_answering(hosting, clean_memory, folders, prompt):
    hosted = hosting.load_mllm(folders["qwen2.5-vl"])
    for run in (hosted.encode, hosted.generate):
        clean_memory.interrupt_current_processing(True)
        with pytest.raises(clean_memory.InterruptProcessingException):
            run(prompt)
        assert not clean_memory.processing_interrupted()
    hooks = hooks_of(hosted.model)
    hosted.encode(prompt)
    assert hooks_of(hosted.model) == hooks


def test_progress_reaches_comfyuis_bar(comfy, hosting, folders, prompt, monkeypatch):
    import comfy.utils

    seen = []
    hook = lambda value, total, preview, node_id=None: seen.append((value, total))  # noqa: E731
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    hosted = hosting.load_mllm(folders["qwen2.5-vl"])
    states = hosted.encode(prompt)
    assert seen[-1] == (states.layers, states.layers)


def test_memory_asked_for_grows_with_what_is_alive(pack, hosting, folders):
    memory, Prompt = pack("nodes.memory"), pack("squeeze_core.mllm").Prompt
    config = hosting.load_mllm(folders["qwen2.5-vl"]).model.config
    few, many = Prompt("a hat"), Prompt("a hat", PICTURES, "", 4)
    here = memory.encode_bytes(config, [many], 2, stored=False)
    assert 0 < memory.encode_bytes(config, [few], 2, stored=False) < here
    assert here < memory.encode_bytes(config, [many], 2, stored=True)
    assert here < memory.encode_bytes(config, [many], 4, stored=False)
    once = memory.generate_bytes(config, few, 1000, 2)
    assert memory.generate_bytes(config, few, 10, 2) < once < memory.generate_bytes(config, few, 1000, 2, 4)


def test_memory_asked_for_at_8b_is_of_the_right_size(pack, clean_memory):
    """Two pictures at InternVL3-8B: some hundred megabytes, beside 15 GB of weights."""
    from types import SimpleNamespace

    memory, Prompt = pack("nodes.memory"), pack("squeeze_core.mllm").Prompt
    text = SimpleNamespace(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28)
    vision = SimpleNamespace(hidden_size=1024, intermediate_size=4096)
    config = SimpleNamespace(text_config=text, vision_config=vision)
    megabytes = memory.encode_bytes(config, [Prompt("a hat on a dog", PICTURES)], 2, stored=False) / 2**20
    assert 100 < megabytes < 1000


def test_an_unknown_device_is_refused_with_the_names(pack, hosting, folders):
    with pytest.raises(pack("squeeze_core.errors").SqueezeError, match="default, gpu, cpu"):
        hosting.load_mllm(folders["qwen2.5-vl"], device="cuda:1")
