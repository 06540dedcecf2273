"""Tiny MLLMs for the tests of hosting: checkpoints of the real layouts, the very ones that tests/mllm loads."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from PIL import Image

FAMILIES = ("internvl with layer norm", "internvl with rms norm", "qwen2.5-vl", "internvl tied")
PICTURES = (
    Image.radial_gradient("L").resize((70, 50)).convert("RGB"),
    Image.linear_gradient("L").resize((64, 64)).convert("RGB"),
)


def make_checkpoints(folder: Path) -> dict[str, Path]:
    """A folder for each of `FAMILIES`: both norms of InternVL's vision towers, heads apart and tied."""
    source = Path(__file__).parent.parent / "mllm" / "checkpoints.py"
    specification = importlib.util.spec_from_file_location("squeeze_test_checkpoints", source)
    checkpoints = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(checkpoints)
    rms = {"norm_type": "rms_norm", "use_qk_norm": True, "attention_bias": False}
    return {
        "internvl with layer norm": checkpoints.internvl(folder / "layer", hidden=128),
        "internvl with rms norm": checkpoints.internvl(folder / "rms", **rms),
        "qwen2.5-vl": checkpoints.qwen(folder / "qwen"),
        "internvl tied": checkpoints.internvl(folder / "tied", tied=True, dtype=torch.bfloat16),
    }


def plain(pack, folder: Path, weight_dtype: str = "default"):
    """The MLLM as it is without ComfyUI."""
    return pack("squeeze_core.mllm").load(folder, weight_dtype)


def loaded(management) -> list:
    """The patchers in the memory manager's list."""
    return [entry.model for entry in management.current_loaded_models]
