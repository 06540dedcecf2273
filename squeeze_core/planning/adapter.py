"""What `squeeze train configs/planner.yaml` makes: a LoRA on an MLLM's language layers, heard while it plans.

It is added by hooks for as long as a plan is written. Encoding never hears it: adapters for FLUX were trained with
the MLLM as it is. Weights may be paged or in 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import SqueezeError
from ..files import checked_header, save_atomically
from ..mllm.backbone import Backbone, MLLMIdentity

FORMAT: Literal["squeeze-planner-1"] = "squeeze-planner-1"
_KEY = "squeeze"
# The linear layers of a language model's blocks.
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class PlannerConfig(BaseModel):
    """mllm: that it was trained on. tiles: of its pictures. trained_by: for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["squeeze-planner-1"] = FORMAT
    mllm: MLLMIdentity
    rank: int
    tiles: int = 1
    trained_by: str = ""


@dataclass(frozen=True)
class PlannerAdapter:
    """lora: "layers.0.self_attn.q_proj.lora_A" [rank, in] and ".lora_B" [out, rank], scale multiplied into B."""

    config: PlannerConfig
    lora: Mapping[str, torch.Tensor]

    def check(self, backbone: Backbone) -> None:
        """Raises `SqueezeError` unless it was trained on this MLLM."""
        if backbone.identity != self.config.mllm:
            raise SqueezeError(
                f"The planner was trained on {self.config.mllm.name or self.config.mllm.label} "
                f"({self.config.mllm.label}), and this MLLM is {backbone.identity.label}. Load that one, or plan "
                "without the planner."
            )

    @contextmanager
    def heard(self, backbone: Backbone) -> Iterator[None]:
        """Inside, the language layers' outputs have the LoRA's added. Raises as `check`."""
        self.check(backbone)
        model: Any = backbone.model
        language = model.model.language_model
        names = sorted({key.rpartition(".")[0] for key in self.lora})
        hooks = []
        try:
            for name in names:
                pair = [self.lora[f"{name}.lora_{part}"] for part in "AB"]
                hooks.append(language.get_submodule(name).register_forward_hook(partial(_add, _Placed(pair))))
            yield
        finally:
            for hook in hooks:
                hook.remove()


class _Placed:
    """A and B, moved once to where they are used."""

    def __init__(self, pair: list[torch.Tensor]) -> None:
        self.pair = pair

    def like(self, given: torch.Tensor) -> list[torch.Tensor]:
        if self.pair[0].device != given.device or self.pair[0].dtype != given.dtype:
            self.pair = [tensor.to(given.device, given.dtype) for tensor in self.pair]
        return self.pair


def _add(placed: _Placed, linear: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor:
    a, b = placed.like(given[0])
    return made + given[0] @ a.T @ b.T


def save(path: str | Path, config: PlannerConfig, lora: Mapping[str, torch.Tensor]) -> None:
    """Whole or not at all. Raises `SqueezeError` for tensors that are not finite."""
    for name, tensor in lora.items():
        if not torch.isfinite(tensor).all():
            raise SqueezeError(f"{name} is not finite, so nothing was written. Train the planner again.")
    save_atomically(path, lora, {_KEY: config.model_dump_json(), "format": "pt"})


def load(path: str | Path) -> PlannerAdapter:
    """Raises `SqueezeError` for a file of anything else."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise SqueezeError(f'There is no planner at "{path}". Give the file that squeeze export wrote.')
    checked_header(path, "planner")
    try:
        with safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get(_KEY, "")
            config = PlannerConfig.model_validate_json(about)
            lora = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping
    except (SafetensorError, ValidationError) as error:
        raise SqueezeError(
            f'"{path.name}" is no planner of this project. Give the file that squeeze export made of a run of '
            "configs/planner.yaml; adapters for FLUX go into Load Squeeze Adapter."
        ) from error
    return PlannerAdapter(config, lora)


def from_peft(weights: Mapping[str, torch.Tensor], prefix: str, scale: float) -> dict[str, torch.Tensor]:
    """peft's names of trained weights below `prefix` -> the file's, `scale` = alpha / rank multiplied into B."""
    found: dict[str, Any] = {}
    for name, tensor in weights.items():
        module, _, rest = name.removeprefix(prefix).partition(".lora_")
        part = rest[0]
        found[f"{module}.lora_{part}"] = tensor * scale if part == "B" else tensor
    return found
