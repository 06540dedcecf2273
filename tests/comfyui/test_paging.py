"""The MLLM when it does not fit: weights in two places, under both of ComfyUI's patchers.

The second place is `pretend_gpu`: no operation may mix the two, and states stay bit for bit what they are
when the whole model lies on that device.
"""

from __future__ import annotations

import json
import weakref
from types import SimpleNamespace

import pytest
import torch
from comfy_mllm import FAMILIES, loaded, plain
from pretend_gpu import DEVICE, MixedDevices, pretend_gpu

CPU = torch.device("cpu")


class Machine:
    """What the memory manager believes about the pretended GPU: `memory` bytes, taken by hosted models."""

    def __init__(self, management, hosting, monkeypatch):
        self.management = management
        self.memory = 1 << 40
        self.patchers = weakref.WeakSet()
        host = hosting.host

        def counted(*args, **kwargs):
            patcher = host(*args, **kwargs)
            self.patchers.add(patcher)
            return patcher

        monkeypatch.setattr(hosting, "host", counted)

    def free(self, device=None, torch_free_too=False):
        left = self.memory - (0 if device == CPU else sum(p.loaded_size() for p in self.patchers))
        return (left, left) if torch_free_too else left


@pytest.fixture
def machine(comfy, pack, clean_memory, monkeypatch):
    management = clean_memory
    machine = Machine(management, pack("nodes.hosting"), monkeypatch)
    monkeypatch.setattr(management, "get_free_memory", machine.free)
    monkeypatch.setattr(management, "get_torch_device", lambda: DEVICE)
    monkeypatch.setattr(management, "get_all_torch_devices", lambda *a, **k: [DEVICE])
    monkeypatch.setattr(management, "text_encoder_device", lambda: DEVICE)
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
    monkeypatch.setattr(management, "lowvram_available", True)
    monkeypatch.setattr(management, "soft_empty_cache", lambda *a, **k: None)
    # Its room for computation is gigabytes, the models here kilobytes.
    monkeypatch.setattr(management, "minimum_inference_memory", lambda: 0)
    monkeypatch.setattr(management, "extra_reserved_memory", lambda: 0)
    monkeypatch.setattr(management, "MIN_WEIGHT_MEMORY_RATIO", 0)
    for name in ("encode_bytes", "generate_bytes", "aggregate_bytes"):
        monkeypatch.setattr(pack("nodes.hosting"), name, lambda *a, **k: 0)
    with torch.no_grad(), pretend_gpu():
        yield machine


@pytest.fixture
def hosting(pack):
    return pack("nodes.hosting")


@pytest.fixture
def expected(machine, hosting, pack, folders, prompt, request):
    """States with the whole model on the device, and a function to host a fresh copy."""
    folder = folders[request.getfixturevalue("family")]

    def fresh():
        return hosting.HostedMLLM(plain(pack, folder))

    hosted = fresh()
    states = hosted.encode(prompt)
    assert places(hosted.model) == {DEVICE}
    machine.management.free_memory(1e30, DEVICE)
    assert places(hosted.model) == {CPU} and loaded(machine.management) == []
    assert torch.equal(plain(pack, folder).encode(prompt).states, states.states)
    return states, fresh


def places(model) -> set[torch.device]:
    return {t.device for t in (*model.model.parameters(), *model.model.buffers())}


def weight_bytes(model, device) -> int:
    """Of the layers that can be fetched, tied weights once."""
    layers = [m for m in model.model.modules() if hasattr(m, "comfy_cast_weights")]
    parameters = {id(p): p for m in layers for p in m.parameters(recurse=False)}
    return sum(p.nbytes for p in parameters.values() if p.device == device)


@pytest.mark.parametrize("family", FAMILIES)
def test_part_loaded_gives_the_same_states(machine, expected, prompt, family):
    states, fresh = expected
    hosted, both = fresh(), 0
    for share in (0.3, 0.5, 0.7):
        machine.memory = int(hosted.patcher.model_size() * share)
        assert torch.equal(hosted.encode(prompt).states, states.states)
        on, off = weight_bytes(hosted.model, DEVICE), weight_bytes(hosted.model, CPU)
        both += on > 0 and off > 0
        assert on <= machine.memory
        machine.management.free_memory(1e30, DEVICE)
    assert both


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_grows_and_shrinks_gives_the_same_states(machine, expected, prompt, family):
    states, fresh = expected
    hosted = fresh()
    for share in (0.3, 0.7, 2, 0.5, 0, 2):
        machine.memory = int(hosted.patcher.model_size() * share)
        assert torch.equal(hosted.encode(prompt).states, states.states)
    assert weight_bytes(hosted.model, CPU) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shrunken_model_still_encodes(machine, expected, prompt, family):
    """The memory manager takes layers away without a load, as when FLUX needs the room."""
    states, fresh = expected
    hosted = fresh()
    hosted.encode(prompt)
    whole = weight_bytes(hosted.model, DEVICE)
    machine.memory = int(hosted.patcher.model_size() * 0.6)
    hosted.patcher.partially_unload(CPU, hosted.patcher.model_size() // 2)
    assert weight_bytes(hosted.model, DEVICE) < whole
    assert torch.equal(hosted.encode(prompt).states, states.states)


@pytest.mark.parametrize("family", FAMILIES)
def test_novram_fetches_every_layer_as_it_runs(machine, expected, prompt, family, monkeypatch):
    states, fresh = expected
    monkeypatch.setattr(machine.management, "vram_state", machine.management.VRAMState.NO_VRAM)
    hosted = fresh()
    assert torch.equal(hosted.encode(prompt).states, states.states)
    assert weight_bytes(hosted.model, DEVICE) == 0
    machine.management.unload_all_models()
    assert places(hosted.model) == {CPU} and loaded(machine.management) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_part_loaded_answers_alike(machine, expected, prompt, family):
    _, fresh = expected
    hosted = fresh()
    answer = hosted.generate(prompt, max_new_tokens=4)
    machine.management.free_memory(1e30, DEVICE)
    machine.memory = int(hosted.patcher.model_size() * 0.4)
    assert hosted.generate(prompt, max_new_tokens=4) == answer
    schema = {"type": "array", "items": {"enum": [0, 1, 2]}, "minItems": 2, "maxItems": 2}
    assert len(json.loads(hosted.generate_json(prompt, schema, seeds=(0, 1), words=1)[1])) == 2
    assert weight_bytes(hosted.model, CPU) > 0


# Qwen2.5-VL has no parameters outside of layers, and moves its rotary frequencies by itself.
@pytest.mark.parametrize("family", [family for family in FAMILIES if "internvl" in family])
def test_without_the_callbacks_devices_would_mix(machine, expected, prompt, family, monkeypatch):
    """What the callbacks are for, and that the pretended GPU finds it."""
    _, fresh = expected
    hosted = fresh()
    hosted.patcher.callbacks.clear()
    monkeypatch.setattr(machine.management, "vram_state", machine.management.VRAMState.NO_VRAM)
    machine.management.load_models_gpu([hosted.patcher])
    with pytest.raises(MixedDevices):
        hosted.backbone.encode(prompt, device=DEVICE)


def test_fp8_weights_are_paged_too(machine, hosting, pack, folders, prompt, monkeypatch):
    folder = folders["internvl with layer norm"]
    states = plain(pack, folder, "fp8_e4m3fn").encode(prompt).states
    hosted = hosting.HostedMLLM(plain(pack, folder, "fp8_e4m3fn"))
    assert torch.equal(hosted.encode(prompt).states, states)
    monkeypatch.setattr(machine.management, "vram_state", machine.management.VRAMState.NO_VRAM)
    machine.management.free_memory(1e30, DEVICE)
    assert torch.equal(hosted.encode(prompt).states, states)


def test_the_aggregator_is_paged(machine, hosting, pack, monkeypatch):
    dla = pack("squeeze_core.dla")
    lap = pack("squeeze_core.lap").LAPConfig(heads=2, layer_embedding=True, bottleneck=32)
    aggregator = dla.Aggregator(dla.DLAConfig(hidden=64, layers=4, context=48, lap=lap))
    for parameter in aggregator.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.1
    states = pack("squeeze_core.mllm").LayerStates(torch.randn(4, 10, 64), torch.arange(10) > 6, "")
    expected, _ = aggregator.eval()(states.states, states.image_mask)

    class AnyMLLM:
        def check_states(self, model_id: str) -> None:
            pass

    hosted = hosting.HostedDLA(aggregator.requires_grad_(False), AnyMLLM())
    context, _ = hosted.aggregate(states)
    assert torch.allclose(context, expected, atol=1e-6) and context.device == CPU
    monkeypatch.setattr(machine.management, "vram_state", machine.management.VRAMState.NO_VRAM)
    machine.management.unload_all_models()
    again, _ = hosted.aggregate(states)
    assert torch.equal(again, context)


class Scaled(torch.nn.Module):
    """A layer whose parameter is no weight that can be fetched."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(8), requires_grad=False)

    def forward(self, x):
        return x * self.scale


def test_layers_that_cannot_fetch_stay_on_the_device(machine, hosting, monkeypatch):
    """When another program has taken memory, a model is shrunk as it is loaded, and no callback is told."""
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), Scaled(), torch.nn.Linear(8, 8)).requires_grad_(False)
    x = torch.rand(2, 8)
    expected = module(x)
    patcher = hosting.host(module)
    hosting.load_models([patcher], 0)
    machine.memory = patcher.loaded_size() - 1
    monkeypatch.setattr(machine.management, "free_memory", lambda *a, **k: [])
    hosting.load_models([patcher], 0)
    assert patcher.loaded_size() <= machine.memory
    assert torch.equal(module(x.to(DEVICE)).to(CPU), expected)


def test_another_model_takes_the_room(machine, hosting, pack, folders, prompt):
    """As FLUX does after the prompt is encoded; and the MLLM comes back for the next prompt."""
    hosted = hosting.HostedMLLM(plain(pack, folders["qwen2.5-vl"]))
    expected = hosted.encode(prompt).states
    size = hosted.patcher.model_size()
    assert hosted.patcher.loaded_size() >= size
    machine.memory = 2 * size
    flux = hosting.host(torch.nn.Linear(size // 8, 3, bias=False))  # 1.5 times as large
    hosting.load_models([flux], 0)
    assert flux.loaded_size() >= flux.model_size()
    assert hosted.patcher.loaded_size() <= machine.memory - flux.model_size()
    assert torch.equal(hosted.encode(prompt).states, expected)


# The dynamic patcher. Its pages need a real GPU; everything around them does not.


@pytest.fixture
def dynamic(machine, comfy, monkeypatch):
    import comfy.model_patcher
    import comfy_aimdo.host_buffer

    patcher = getattr(comfy.model_patcher, "ModelPatcherDynamic", None)
    if patcher is None:
        pytest.skip("this ComfyUI has no dynamic patcher")
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", patcher)
    # Without pages a layer's weights stay in main memory and are cast as they are used.
    monkeypatch.setattr(patcher, "_vbar_get", lambda self, create=False: None)
    monkeypatch.setattr(comfy_aimdo.host_buffer, "HostBuffer", lambda *a: SimpleNamespace(size=0))
    return machine


@pytest.mark.parametrize("family", FAMILIES)
def test_dynamic_patcher_gives_the_same_states(expected, dynamic, prompt, family):
    states, _ = expected
    hosted = expected[1]()
    assert hosted.patcher.is_dynamic()
    assert torch.equal(hosted.encode(prompt).states, states.states)
    assert weight_bytes(hosted.model, CPU) > 0  # the large layers stay, to be paged
    assert torch.equal(hosted.encode(prompt).states, states.states)
    assert hosted.generate(prompt, max_new_tokens=2) == hosted.generate(prompt, max_new_tokens=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_dynamic_patcher_brings_everything_back(expected, dynamic, prompt, family):
    hosted = expected[1]()
    before = {key: value.clone() for key, value in hosted.model.state_dict().items()}
    hosted.encode(prompt)
    dynamic.management.unload_all_models()
    assert loaded(dynamic.management) == [] and places(hosted.model) == {CPU}
    after = hosted.model.state_dict()
    assert all(torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items())
