"""The models of Score Pictures when they do not fit: no operation mixes places, and scores stay what they are."""

import gc
import importlib.util
from pathlib import Path

import pytest
import torch
from pretend_gpu import DEVICE, pretend_gpu
from test_paging import Machine

_SPEC = importlib.util.spec_from_file_location(
    "tiny_scorers", Path(__file__).resolve().parents[1] / "evaluation" / "models.py"
)
tiny = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tiny)

ROLES = {
    "dino": (tiny.dino, "backbones", "load_dino"),
    "clip": (tiny.clip, "backbones", "load_clip"),
    "orientation": (tiny.orient_anything, "orientation", "load_orientation"),
}
PICTURES = [tiny.picture(seed, 80, 80) for seed in range(3)]


@pytest.fixture
def machine(comfy, pack, clean_memory, monkeypatch):
    management = clean_memory
    machine = Machine(management, pack("nodes.paging"), monkeypatch)
    monkeypatch.setattr(management, "get_free_memory", machine.free)
    monkeypatch.setattr(management, "get_torch_device", lambda: DEVICE)
    monkeypatch.setattr(management, "get_all_torch_devices", lambda *a, **k: [DEVICE])
    monkeypatch.setattr(management, "text_encoder_offload_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NORMAL_VRAM)
    monkeypatch.setattr(management, "lowvram_available", True)
    monkeypatch.setattr(management, "soft_empty_cache", lambda *a, **k: None)
    monkeypatch.setattr(management, "minimum_inference_memory", lambda: 0)
    monkeypatch.setattr(management, "extra_reserved_memory", lambda: 0)
    monkeypatch.setattr(management, "MIN_WEIGHT_MEMORY_RATIO", 0)
    return machine


def values(scorer, role) -> torch.Tensor:
    """What the scorer gives; under no_grad, because the pretended GPU knows no inference mode."""

    def plain(name, *arguments):
        return getattr(type(scorer), name).__wrapped__(scorer, *arguments)

    with torch.no_grad():
        if role == "orientation":
            found = plain("estimate", PICTURES)
            return torch.tensor([[one.azimuth, one.polar, one.rotation, one.confidence] for one in found])
        vectors = plain("encode", PICTURES)
        return torch.cat([vectors, plain("encode_texts", ["a dog"])]) if role == "clip" else vectors


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("role", ROLES)
def test_scores_do_not_depend_on_where_the_weights_lie(machine, pack, tmp_path, role, share):
    make, module, function = ROLES[role]
    load = getattr(pack(f"squeeze_core.vision.{module}"), function)
    folder = make(tmp_path / role)
    expected = values(load(folder), role)
    scorer = load(folder)
    size = sum(p.nbytes for p in scorer.model.parameters())
    machine.memory = int(share * size) if share < 1 else 1 << 40
    with torch.no_grad(), pretend_gpu():
        pack("nodes.paging").host_scorer(scorer, 0)
        places = {p.device for p in scorer.model.parameters()}
        assert places == ({DEVICE} if share == 1 else {DEVICE, torch.device("cpu")})
        assert torch.allclose(values(scorer, role), expected, atol=1e-6)


def test_a_scorer_that_is_let_go_leaves_the_memory_manager(machine, pack, tmp_path):
    scorer = pack("squeeze_core.vision.backbones").load_dino(tiny.dino(tmp_path / "dino"))
    with torch.no_grad(), pretend_gpu():
        pack("nodes.paging").host_scorer(scorer, 0)
        assert any(patcher is scorer.patcher for patcher in machine.patchers)
        del scorer
        gc.collect()
        assert not list(machine.patchers)
