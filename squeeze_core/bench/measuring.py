"""How time and memory are measured: interleaved runs, medians, and bytes of live tensors."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def default_device() -> torch.device:
    """The CUDA GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def hardware(device: torch.device | None = None) -> dict[str, str | int]:
    """What the numbers were measured on."""
    device = device or default_device()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "clock": "CUDA events" if device.type == "cuda" else "processor time of one thread",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def compared(
    runs: Mapping[str, Callable[[], object]], baseline: str, repeats: int, device: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each of the runs, and the median over rounds of its ratio to the baseline.

    Without gradients, interleaved, in turn forwards and backwards, after one round that does not count: what
    the machine does beside it, and how warm it is, meets all of them alike. A ratio compares two runs of one
    round, so it can be trusted more than the seconds. On the CPU the clock is the processor time of one
    thread, which other programs disturb little.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad(), _one_thread() if device.type == "cpu" else nullcontext():
        for run in runs.values():
            run()
        for repeat in range(repeats):
            for name in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
                seconds[name].append(_seconds(runs[name], device))
    medians = {name: median(values) for name, values in seconds.items()}
    ratios = {
        name: median(value / base for value, base in zip(values, seconds[baseline]))
        for name, values in seconds.items()
    }
    return medians, ratios


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors alive at one time that `run` made, without gradients.

    On CUDA the allocator's own count; on the CPU a count of every storage that an operation returned, so what
    one operation takes and gives back inside itself is not seen.
    """
    with torch.no_grad():
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            run()
            torch.cuda.synchronize(device)
            return torch.cuda.max_memory_allocated(device) - before
        with _LiveBytes() as live:
            run()
        return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the storages made while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {_address(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _address(tensor) not in given:
                storage = tensor.untyped_storage()
                self._alive[_address(tensor)] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1000
    start_s = time.process_time()
    run()
    return time.process_time() - start_s


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
