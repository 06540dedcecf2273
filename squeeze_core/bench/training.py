"""One training step at the true sizes with random weights: where the time goes, share of the GPU's peak, memory.

    squeeze bench train --batch 16 --series --json benchmarks/training_step.json

`python -m squeeze_core.bench.training` takes the same options. Needs no file of any model. `--size tiny` runs the
same code in seconds on a CPU. A row is written as soon as it is measured; one that fails says how.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..files import write_text
from ..training.attention import allowed
from ..training.checkpointing import Checkpointing, parse
from ..training.config import TrainConfig
from ..training.flux_task import FluxTask
from .random_tasks import SIZES, random_task, ready

# Dense bf16 TFLOP/s of makers' data sheets, by what a GPU's name contains.
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "RTX 4090": 165, "RTX 3090": 71}


@dataclass(frozen=True)
class Variant:
    """One row: a batch size, and settings of `TrainConfig` by their names."""

    batch: int = 16
    calls: str = "few"
    gradient_checkpointing: Checkpointing = True
    compile: bool = False
    base: str = "as_is"
    rank: int | None = None  # the size's own

    @property
    def changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("calls", "gradient_checkpointing", "compile", "base")}

    def changes_of(self, stage: int) -> dict[str, Any]:
        """Stage 0 has no LoRA, and one way of calling FLUX."""
        if stage == 0:
            return {name: value for name, value in self.changes.items() if name != "calls"}
        return self.changes | ({} if self.rank is None else {"lora": {"rank": self.rank}})


# What each saving brings, one after the other, and a step that shall fit a small GPU.
SERIES = (
    Variant(calls="each"),
    Variant(calls="group"),
    Variant(calls="mask"),
    Variant(),
    Variant(gradient_checkpointing="auto"),
    Variant(compile=True),
    Variant(compile=True, gradient_checkpointing="auto"),
    Variant(batch=1, rank=64, base="int8"),
    Variant(batch=1, rank=64, base="nf4"),
)


def measure(task: FluxTask, batch_size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a step (median) and of its parts, FLOPs of the models, peak memory in bytes, of one process."""
    task.to(device)
    task.module.train()
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-5, fused=device.type == "cuda" or None)
    warming = 2  # the first step also lets "auto" see the memory, the second compiles what that changed
    batches = [
        [ready(task, sample) for sample in task.batch(range(i * batch_size, (i + 1) * batch_size))]
        for i in range(repeats + warming)
    ]
    clock = Clock(device)
    clock.listen(task)
    # Without the compiler, which the counter cannot look into.
    with torch.compiler.set_stance("force_eager"):
        flops = _flops(task, batches[0])
    optimizer.zero_grad(set_to_none=True)
    seconds, parts = [], []
    for number, batch in enumerate(batches):
        if device.type == "cuda" and number == warming:
            torch.cuda.reset_peak_memory_stats(device)
        clock.reset()
        began = time.perf_counter()
        with allowed(task.config.attention_kernels):
            with clock("forward"), _autocast(device):
                loss, numbers = task.loss(batch)
            with clock("backward"):
                loss.backward()
        with clock("optimizer"):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if not torch.isfinite(loss.detach()):  # waits for the GPU as well
            raise ArithmeticError(f"the loss is {float(loss.detach())}")
        seconds.append(time.perf_counter() - began)
        parts.append(clock.seconds())
        task.stepped()
    began = time.perf_counter()
    task.batch(range(batch_size))
    data = time.perf_counter() - began
    step = median(seconds[warming:])
    return {
        "batch": batch_size,
        "seconds": round(step, 4),
        "samples_per_second": round(batch_size / step, 3),
        "parts": _shares(parts[warming:], step),
        "data_seconds": round(data, 4),  # by threads, beside the step
        "model_tflop": round(flops / 1e12, 3),
        "tflop_per_second": round(flops / 1e12 / step, 2),
        "flux_calls": numbers["flux_calls"],
        "context_tokens": round(float(numbers["context_tokens"]), 1),
        "checkpointed_blocks": task.blocks.again,
        "peak_memory_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
        if device.type == "cuda"
        else None,
        "trained_parameters": sum(p.numel() for p in parameters),
    }


class Clock:
    """Seconds of named parts of a step: by events on a GPU, which nothing waits for, by the clock on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.reset()

    def reset(self) -> None:
        self.marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = self._now()
        try:
            yield
        finally:
            self.marks.append((name, began, self._now()))

    def listen(self, task: FluxTask) -> None:
        """To the MLLM, the aggregator (which asks the MLLM), FLUX and stage 0's teacher, in a forward pass."""
        parts = {"mllm": "_states", "contexts": "_contexts", "flux forward": "_errors", "teacher": "_taught"}
        for name, method in parts.items():
            if hasattr(task, method):
                setattr(task, method, self._timed(name, getattr(task, method)))

    def seconds(self) -> dict[str, float]:
        """Parts that do not overlap. On a GPU after its end was waited for."""
        sums: dict[str, float] = {}
        for name, began, ended in self.marks:
            took = began.elapsed_time(ended) / 1000 if self.cuda else ended - began
            sums[name] = sums.get(name, 0.0) + took
        sums["dla"] = sums.pop("contexts", 0.0) - sums.get("mllm", 0.0)
        sums.pop("forward", None)
        return sums

    def _timed(self, name: str, method: Callable) -> Callable:
        def timed(*arguments: Any) -> Any:
            with self(name):
                return method(*arguments)

        return timed

    def _now(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _shares(steps: Sequence[dict[str, float]], whole: float) -> dict[str, dict[str, float]]:
    """Name -> seconds (median over the steps) and share of the step. "backward" is FLUX's and the aggregator's."""
    names = sorted({name for step in steps for name in step})
    middle = {name: median([step.get(name, 0.0) for step in steps]) for name in names}
    return {name: {"seconds": round(took, 4), "share": round(took / whole, 3)} for name, took in middle.items()}


def _flops(task: FluxTask, batch: list) -> int:
    """Of one step as the models need it: neither padding nor what checkpointing computes again is counted.

    Of stage 0, whose samples are padded to `batching.ALIGN` tokens when alone too, that little is.
    """
    given = task.config
    if isinstance(given, TrainConfig):
        task.config = given.model_copy(update={"calls": "each"})
    try:
        return sum(_counted(task, [sample]) for sample in batch)
    finally:
        task.config = given


def _counted(task: FluxTask, batch: list) -> int:
    with allowed(task.config.attention_kernels):
        with _autocast(task.device), counted_flops() as forward:
            loss, _ = task.loss(batch)
        with counted_flops() as backward:
            loss.backward()
    parts = forward.get_flop_counts()
    blocks = [block for block, number in task.blocks.order.items() if number < task.blocks.again]
    again = {name for name, module in task.module.named_modules() if module in (*blocks, task.module.aggregator)}
    computed_again = sum(sum(counts.values()) for name, counts in parts.items() if _ends_with_any(name, again))
    return forward.get_total_flops() + backward.get_total_flops() - computed_again


def _ends_with_any(name: str, modules: set[str]) -> bool:
    """A module's name as the counter says it: of the outermost module that was called, and what is in it."""
    inner = name.partition(".")[2]
    return f"transformer.{inner}" in modules or (name == "Aggregator" and "aggregator" in modules)


def counted_flops() -> FlopCounterMode:
    """PyTorch's counter, whose own count of attention refuses fewer key and value heads than query heads."""
    forward = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    names = (f"_scaled_dot_product_{name}" for name in forward)
    known = {getattr(torch.ops.aten, name): _attention_flops for name in names if hasattr(torch.ops.aten, name)}
    return FlopCounterMode(display=False, custom_mapping=known)


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *rest: Any, **more: Any
) -> int:
    """Of [batch, heads, tokens, width]: scores and their sums, of every query head, whatever it shares."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def rows(
    variants: Sequence[Variant],
    size: str,
    stage: int,
    device: torch.device,
    *,
    repeats: int = 5,
    peak: float | None = None,
    out: Path | None = None,
    said: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measure each variant on one device in one run. Each row is said and written as soon as it is there.

    peak: dense bf16 TFLOP/s, where the GPU's name does not tell. A row that fails says how, and the next goes on.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = peak or next((value for part, value in PEAKS.items() if part in name), None)
    found: list[dict[str, Any]] = []
    for variant in variants:
        row: dict[str, Any] = {"device": name, "torch": torch.__version__, "size": size, "stage": stage}
        row |= {"batch": variant.batch, **variant.changes}
        task = None
        try:
            task = random_task(size, stage, device, **variant.changes_of(stage))
            row |= measure(task, variant.batch, repeats, device)
            if variant.base != "as_is":  # few-bit layers are operators that the counter does not know
                row |= {"model_tflop": None, "tflop_per_second": None}
            counted = peak is not None and row["tflop_per_second"] is not None
            row["mfu"] = round(row["tflop_per_second"] / peak, 4) if counted else None
        except torch.cuda.OutOfMemoryError:
            row["out_of_memory"] = True
        except Exception as error:  # whatever a kernel or a compiler says: the next row may be fine
            row["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        found.append(row)
        said(json.dumps(row))
        if out is not None:
            write_text(out, json.dumps(found, indent=1) + "\n")
        del task
        torch.compiler.reset()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The command line: one variant for each batch size, or the series."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    parser.add_argument("--stage", type=int, choices=(0, 1, 2), default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--calls", choices=("few", "mask", "group", "each"), default="few")
    parser.add_argument("--checkpointing", default="on", help="on, off, auto, or a number of blocks")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--base", choices=("as_is", "int8", "nf4"), default="as_is")
    parser.add_argument("--rank", type=int, help="of the LoRA; the size's own by default")
    parser.add_argument("--series", action="store_true", help="what each saving brings, one after the other")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peak", type=float, help="dense bf16 TFLOP/s of the GPU, where its name does not tell")
    parser.add_argument("--out", "--json", type=Path, help="a JSON file for the rows")
    given = parser.parse_args(arguments)
    checkpointing = int(given.checkpointing) if given.checkpointing.isdecimal() else parse(given.checkpointing)
    variants = [
        Variant(batch, given.calls, checkpointing, given.compile, given.base, given.rank) for batch in given.batch
    ]
    if given.series:
        variants = [replace(each, batch=min(each.batch, given.batch[0])) for each in SERIES]
    device = torch.device(given.device)
    return rows(variants, given.size, given.stage, device, repeats=given.repeats, peak=given.peak, out=given.out)


if __name__ == "__main__":
    main()
