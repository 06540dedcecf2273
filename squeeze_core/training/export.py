"""A run's checkpoint -> the adapter file that nodes and pipeline load. Needs none of the base models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from .. import __version__, adapter
from ..errors import SqueezeError
from ..flux import lora
from ..gate import Gate
from ..planning import adapter as planner_file
from .checkpoint import Checkpoints, read_state, read_tensors
from .planner.task import PREFIX as PLANNER_PREFIX
from .state import AVERAGE, WEIGHTS

Dtype = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AGGREGATOR = "aggregator."
_MLLM_ONLY = Gate(tau_1=0.0, tau_2=0.0)


def export(run: str | Path, out: str | Path, dtype: Dtype = "fp32", *, average: bool = True) -> Path:
    """Write the newest checkpoint of a run as an adapter, whole or not at all. Returns the checkpoint.

    dtype: "fp32" is as trained, bit for bit; "bf16" and "fp16" halve the file. average: the moving average of
    the weights where the run keeps one. The LoRA's alpha / rank is multiplied into B. An adapter of stage 1 says
    that the MLLM speaks alone, in all steps: FLUX has not met reference tokens, nor the MLLM's silence.
    Raises `SqueezeError` for a folder that holds no such run, and for tensors that are empty or not finite.
    """
    run = Path(run).expanduser()
    newest = Checkpoints(run / "checkpoints").latest()
    if newest is None:
        raise SqueezeError(f'"{run}" has no checkpoint. Give the folder of a run (squeeze train ... --out RUN).')
    state = read_state(newest)
    task = state.get("identity", {}).get("task", {})
    if "planner" in task:
        _export_planner(newest, task, out, dtype, average)
        return newest
    if "adapter" not in task:
        raise SqueezeError(f'"{run}" trained no adapter and no planner. Give a run of one.')
    try:
        config = adapter.AdapterConfig.model_validate(task["adapter"])
    except ValidationError as error:
        raise SqueezeError(
            f'The checkpoint "{newest}" is of an adapter that this version does not know '
            f"({error.errors()[0]['msg']}). Export it with the version that trained it."
        ) from error
    distilled = task.get("stage") == 0
    kind = "MLLM and VAE" if task["vae_references"] else "distilled from T5" if distilled else "MLLM only"
    said = f"squeeze {__version__}, {kind}, {state['step']} steps"
    weights = (read_tensors(newest, AVERAGE) if average else {}) or read_tensors(newest, WEIGHTS)
    weights = {name: tensor.to(_DTYPES[dtype]) for name, tensor in weights.items()}
    own = {name.removeprefix(_AGGREGATOR): t for name, t in weights.items() if name.startswith(_AGGREGATOR)}
    rest = {name: tensor for name, tensor in weights.items() if not name.startswith(_AGGREGATOR)}
    for name, tensor in weights.items():
        if not tensor.numel():
            raise SqueezeError(f'The checkpoint "{newest}" holds {name} without a number in it. Train again.')
    gate = config.gate if task["vae_references"] or distilled else _MLLM_ONLY
    config = config.model_copy(update={"trained_by": said, "gate": gate})
    adapter.save(out, config, own, lora.baked(rest, task["lora_alpha"]))
    return newest


def _export_planner(newest: Path, task: Mapping[str, Any], out: str | Path, dtype: Dtype, average: bool) -> None:
    steps = read_state(newest)["step"]
    config = planner_file.PlannerConfig.model_validate(task["planner"])
    weights = (read_tensors(newest, AVERAGE) if average else {}) or read_tensors(newest, WEIGHTS)
    scale = (task["lora_alpha"] or config.rank) / config.rank
    lora = planner_file.from_peft(weights, PLANNER_PREFIX, scale)
    said = config.model_copy(update={"trained_by": f"squeeze {__version__}, {steps} steps"})
    planner_file.save(out, said, {name: tensor.to(_DTYPES[dtype]) for name, tensor in lora.items()})
