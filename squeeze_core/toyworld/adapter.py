"""The toy world's adapter: aggregator, projector and a LoRA, small and random, but zero nowhere."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open

from .. import adapter
from ..dla import Aggregator, DLAConfig, Variant
from ..flux import lora
from ..flux.spec import DiTSpec
from ..lap import LAPConfig
from ..mllm.backbone import MLLMIdentity
from . import flux, mllm
from .seeding import normal, seeded

LORA_RANK = 4  # of the untrained one
TRAINED_LORA_RANK = 32  # an eighth of the width, as 512 is a sixth of the real one
_WIDTH = flux.CONFIG["num_attention_heads"] * flux.CONFIG["attention_head_dim"]


def config(final_norm_hash: str, lora_rank: int = LORA_RANK, variant: Variant = "dual") -> adapter.AdapterConfig:
    """The config for the tiny models; `trained_by` is empty because nothing has trained them."""
    return adapter.AdapterConfig(
        mllm=MLLMIdentity(
            model_type=mllm.CONFIG["model_type"],
            hidden_size=mllm.HIDDEN,
            layers=mllm.LAYERS,
            final_norm_hash=final_norm_hash,
            name="the toy world's MLLM",
        ),
        dit=DiTSpec(
            width=_WIDTH,
            double_blocks=flux.CONFIG["num_layers"],
            single_blocks=flux.CONFIG["num_single_layers"],
            context=flux.CONTEXT_WIDTH,
            name="the toy world's FLUX",
        ),
        dla=DLAConfig(
            hidden=mllm.HIDDEN,
            layers=mllm.LAYERS + 1,
            context=flux.CONTEXT_WIDTH,
            variant=variant,
            lap=LAPConfig(heads=3),
        ),
        lora_rank=lora_rank,
    )


def write(path: Path, mllm_folder: Path, seed: int) -> None:
    """Write the adapter for the MLLM in a folder. Touches no global random numbers."""
    settings = config(final_norm_hash(mllm_folder))
    aggregator = seeded(lambda: Aggregator(settings.dla), seed)
    adapter.save(path, settings, aggregator.state_dict(), lora_state(seed, settings))


def lora_state(seed: int, settings: adapter.AdapterConfig) -> dict[str, torch.Tensor]:
    """As `lora_A` and `lora_B` of the config's rank; the update is about a fifth of the weight it is added to."""
    tensors = {}
    for module in lora.attention_modules(flux.CONFIG["num_layers"], flux.CONFIG["num_single_layers"]):
        a, b = (f"{lora.PREFIX}{module}.lora_{part}.weight" for part in "AB")
        tensors[a] = normal(a, (settings.lora_rank, _WIDTH), seed) / _WIDTH**0.5
        tensors[b] = normal(b, (_WIDTH, settings.lora_rank), seed) / 10
    return tensors


def final_norm_hash(folder: Path) -> str:
    """Of the MLLM in a folder, as `MLLMIdentity` has it."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        weight = file.get_tensor("model.language_model.norm.weight")
    return hashlib.sha256(weight.float().numpy().astype("<f4").tobytes()).hexdigest()[:16]
