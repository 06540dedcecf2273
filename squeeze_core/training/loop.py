"""The training loop: a `Task`, steps of AdamW, checkpoints that survive anything.

Runs on one CPU, one GPU, or several processes started by torchrun or `accelerate launch`, with DDP or FSDP2.
Sample indices are a fixed function of the step, and every draw is one of the index (`draws.py`), so a run
gives the same curve however it is spread over processes, and goes on after a kill as if never stopped.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from ..draws import Draws
from ..errors import SqueezeError
from ..files import is_disk_full, write_text
from .attention import allowed
from .checkpoint import Checkpoints, read_state
from .fsdp import shard
from .log import RunLog, peak_memory
from .prefetch import prefetched
from .settings import BatchLayout, LoopSettings
from .state import TrainedState
from .task import Task

_STOP = "stop"  # among the numbers of a step
# For the slowest of the processes, which may have an archive of many gigabytes to go through first.
_PATIENCE = timedelta(hours=12)
# Called after each step with (step, steps, loss).
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class RunResult:
    """step: steps done. interrupted: stopped by Ctrl-C or SIGTERM, after saving. loss: of the last step."""

    step: int
    interrupted: bool
    loss: float | None


class Trainer:
    """Trains a task in a run folder: config.json, log.jsonl, tensorboard/, samples/, checkpoints/.

    record: what config.json shall say besides the settings.
    """

    def __init__(
        self,
        task: Task,
        settings: LoopSettings,
        run_dir: str | Path,
        *,
        record: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.task = task
        self.settings = settings
        self.folder = Path(run_dir)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", settings.keep)
        self.record = dict(record) if record is not None else settings.model_dump(mode="json")
        self.progress = progress

    def run(self, resume: bool = False) -> RunResult:
        """Train up to `steps`, from the newest checkpoint if `resume` and there is one, else from the start.

        Raises `SqueezeError` when the folder holds a run and `resume` is not set, when the checkpoint is of
        another run, when the loss or the gradient is no number any more, when the disk is full. The last
        checkpoint is whole in each case.
        """
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

        settings, task = self.settings, self.task
        check_processes(settings)
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS begins
            torch.use_deterministic_algorithms(True, warn_only=True)
        # Precision is the loop's own autocast: accelerate's would be global to the process.
        accelerator = Accelerator(
            cpu=settings.on_cpu,
            mixed_precision="no",
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                    # Else DDP sorts its buckets anew after the first step of a start, and with three processes or
                    # more the order of a sum depends on its place there: a resumed run would differ.
                    find_unused_parameters=settings.deterministic,
                ),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
        layout = settings.batch_layout(accelerator.num_processes)
        self._together(accelerator, lambda: check_folder(self.folder, resume))

        task.to(accelerator.device)
        if not (resume and self.checkpoints.latest()):
            task.begin()
        model: nn.Module = _LossOf(task)
        if settings.sharding == "fsdp2":
            shard(model, task.shard_units(), accelerator.device, settings.precision)
        elif accelerator.num_processes > 1:
            model = accelerator.prepare_model(model)
        task.module.train()
        parameters = [p for p in task.module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters,
            settings.learning_rate,
            settings.betas,
            settings.eps,
            settings.weight_decay,
            fused=accelerator.device.type == "cuda" or None,  # else it makes copies of all moments: 4 GB
        )
        state = TrainedState(task.module, optimizer, settings.ema)
        start = self._restore(state) if resume else 0
        log = None
        try:
            with self._full_disk_said_plainly(), _stop_signals() as stop:
                if accelerator.is_main_process:
                    self._begin_folder()
                    log = RunLog(self.folder, start, settings.tensorboard)
                return self._train(accelerator, layout, model, state, log, start, stop)
        finally:
            if log is not None:
                log.close()

    def _train(
        self,
        accelerator: Any,
        layout: BatchLayout,
        model: nn.Module,
        state: TrainedState,
        log: RunLog | None,
        start: int,
        stop: threading.Event,
    ) -> RunResult:
        settings, rank = self.settings, accelerator.process_index
        wanted = (
            layout.indices(step, part, rank)
            for step in range(start, settings.steps)
            for part in range(layout.accumulation)
        )
        batches = prefetched(self.task.batch, wanted, settings.workers)
        step, loss, interrupted, saved = start, None, False, start
        try:
            while step < settings.steps and not interrupted:
                began = time.perf_counter()
                numbers = self._step(accelerator, layout, model, state, batches, step, stop)
                if numbers is None:
                    interrupted = True
                    if saved != step:
                        self._save(accelerator, state, step)
                        saved = step
                    break
                interrupted = numbers.pop(_STOP) > 0
                step, loss = step + 1, numbers["loss"]
                seconds = time.perf_counter() - began
                if log is not None:
                    log.step(
                        {
                            "step": step,
                            "loss": loss,
                            "lr": settings.learning_rate_at(step - 1),
                            "samples": step * settings.batch_size,
                            "seconds": round(seconds, 4),
                            "samples_per_second": round(settings.batch_size / seconds, 4),
                            "peak_memory": peak_memory(accelerator.device),
                            **numbers,
                        }
                    )
                if step % settings.save_every == 0 or step == settings.steps or interrupted:
                    self._save(accelerator, state, step)
                    saved = step
                if settings.sample_every and (step % settings.sample_every == 0 or step == settings.steps):
                    self._sample(model, state, log, step)
                if self.progress is not None and accelerator.is_main_process:
                    self.progress(step, settings.steps, loss)
        finally:
            batches.close()
        assert saved == step or step == start
        return RunResult(step, interrupted, loss)

    def _step(
        self,
        accelerator: Any,
        layout: BatchLayout,
        model: nn.Module,
        state: TrainedState,
        batches: Iterator[Any],
        step: int,
        stop: threading.Event,
    ) -> dict[str, float] | None:
        """One update. Returns the numbers for the log and, under `_STOP`, whether to stop, equal in all processes.

        None for an update that was given up between two of its parts, because a stop was asked for: it is done
        again, from the same draws, when the run is resumed. torchrun kills what has not ended after 30 seconds.
        """
        settings = self.settings
        for group in state.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(step)
        sums: dict[str, torch.Tensor] = {}  # added up where they are: reading one would wait for the GPU
        for part in range(layout.accumulation):
            batch = next(batches)
            # For tasks that use dropout: nothing of ours draws from the global random numbers.
            first = layout.indices(step, part, accelerator.process_index)[0]
            torch.manual_seed(Draws(settings.seed).integer("global", first, 2**62))
            last = part == layout.accumulation - 1
            apart = nullcontext() if last else accelerator.no_sync(model)
            with apart, allowed(settings.attention_kernels):
                with self._autocast():
                    loss, numbers = model(batch)
                with _deterministic(settings.deterministic):
                    (loss / layout.accumulation).backward()
            for name, value in {"loss": loss.detach(), **numbers}.items():
                value = torch.as_tensor(value, dtype=torch.float32) / layout.accumulation
                sums[name] = sums[name] + value if name in sums else value
            if not last and self._shared(accelerator, {_STOP: float(stop.is_set())})[_STOP]:
                state.optimizer.zero_grad(set_to_none=True)
                return None
        read = {name: float(value) for name, value in sums.items()}
        numbers = self._shared(accelerator, {**read, _STOP: float(stop.is_set())})
        norm = _number(nn.utils.clip_grad_norm_(list(state.parameters.values()), settings.clip))
        for what, value in (("loss", numbers["loss"]), ("norm of the gradient", norm)):
            if not torch.isfinite(torch.tensor(value)):
                raise SqueezeError(self._diverged(what, value, step + 1))
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.update_average()
        self.task.stepped()
        return {**numbers, "grad_norm": norm}

    def _shared(self, accelerator: Any, numbers: Mapping[str, float]) -> dict[str, float]:
        """Means over all processes."""
        names = sorted(numbers)
        exact = torch.float32 if accelerator.device.type == "mps" else torch.float64
        mine = torch.tensor([numbers[name] for name in names], device=accelerator.device, dtype=exact)
        return dict(zip(names, accelerator.reduce(mine, reduction="mean").tolist()))

    def _autocast(self) -> Any:
        return torch.autocast(self.task.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def _save(self, accelerator: Any, state: TrainedState, step: int) -> None:
        groups = state.gathered(keep=accelerator.is_main_process)
        self._together(
            accelerator,
            lambda: self.checkpoints.write(
                step, groups, {"samples": step * self.settings.batch_size, "identity": self._identity()}
            ),
        )

    def _sample(self, model: nn.Module, state: TrainedState, log: RunLog | None, step: int) -> None:
        """Every process takes part when the weights are spread over them; else only the main one."""
        if self.settings.sharding == "none":
            model = _LossOf(self.task)  # not DDP's, which would wait for the others
            if log is None:
                return
        self.task.module.eval()
        with torch.no_grad(), state.averaged():
            pictures = model(None, sample_at=step)
        if isinstance(model, FSDPModule):
            model.reshard()  # else its root keeps what it has gathered: the average, not the weights
        self.task.module.train()
        if log is not None:
            log.pictures(step, pictures)

    def _restore(self, state: TrainedState) -> int:
        newest = self.checkpoints.latest()
        if newest is None:
            return 0
        saved = read_state(newest)
        _check_same(self._completed(saved.get("identity", {})), self._identity(), newest)
        state.restore(newest)
        return int(saved["step"])

    def _identity(self) -> dict[str, Any]:
        # Through JSON, as the one that it is compared with.
        return json.loads(json.dumps({"loop": self.settings.identity(), "task": self.task.identity()}))

    def _completed(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        loop, task = saved.get("loop", {}), saved.get("task", {})
        return {"loop": self.settings.completed(loop), "task": self.task.completed(task) if task else {}}

    def _begin_folder(self) -> None:
        self.checkpoints.clear_leftovers()
        write_text(self.folder / "config.json", json.dumps(self.record, indent=1) + "\n")

    def _together(self, accelerator: Any, act: Callable[[], Any]) -> None:
        """Done by the main process; what goes wrong there is raised in all, so that none waits for ever."""
        from accelerate.utils import broadcast_object_list

        problem: list[Any] = [None]
        if accelerator.is_main_process:
            try:
                act()
            except SqueezeError as error:
                problem = [str(error)]
            except Exception as error:
                if not is_disk_full(error):
                    raise
                problem = [self._full(error)]
        broadcast_object_list(problem)
        if problem[0] is not None:
            raise SqueezeError(problem[0])

    @contextmanager
    def _full_disk_said_plainly(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise SqueezeError(self._full(error)) from error

    def _full(self, error: BaseException) -> str:
        return (
            f'The disk of "{self.folder}" is full ({error}). Free some room and go on with --resume: '
            f"{self._last_good()}."
        )

    def _diverged(self, what: str, value: float, step: int) -> str:
        return (
            f"The {what} is {value} at step {step}, so the training stopped: {self._last_good()}. "
            "Lower the learning rate, or look for broken pictures among the samples of this step "
            f"({(step - 1) * self.settings.batch_size} to {step * self.settings.batch_size - 1})."
        )

    def _last_good(self) -> str:
        newest = self.checkpoints.latest()
        return "nothing was saved yet" if newest is None else f'the last good checkpoint is "{newest}"'


def leave_processes() -> None:
    """Take leave of the other processes, at the end of a program.

    Call it when nothing holds the trained module any more: a process group that outlives the interpreter
    sometimes aborts it, and torchrun then reports a failure where all was well.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def check_processes(settings: LoopSettings) -> None:
    """Raises `SqueezeError` where weights are to be shared by several processes and this one is alone."""
    if settings.sharding == "fsdp2" and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise SqueezeError(
            'sharding is "fsdp2", which spreads weights over several processes, and this is the only one. '
            "Start with torchrun or accelerate launch, or set sharding=none."
        )


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """For backward passes. What only warns leaves attention's with kernels that add up in any order."""
    if not wanted:
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def check_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a run. Raises `SqueezeError` when it may not be used, or is not empty unless resuming."""
    if folder.exists() and not folder.is_dir():
        raise SqueezeError(f'"{folder}" is a file. Give the name of a folder for the run.')
    if not resume and folder.is_dir() and any(folder.iterdir()):
        raise SqueezeError(
            f'"{folder}" is not empty. Add --resume to go on with the run in it, or choose another folder.'
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SqueezeError(
            f'The run folder "{folder}" cannot be made ({error.strerror or error}). Choose another one.'
        ) from error


class _LossOf(nn.Module):
    """A task's loss as a module's forward, which is where DDP and FSDP2 hook in; its pictures likewise."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.module = task.module
        self._task = [task]  # in a list: a task is no module, and must not be copied as one

    def forward(self, batch: Any, sample_at: int | None = None) -> Any:
        return self._task[0].loss(batch) if sample_at is None else self._task[0].sample(sample_at)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C or SIGTERM; the second Ctrl-C stops at once, as ever."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def asked(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _number(norm: torch.Tensor) -> float:
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # type: ignore[operator]


def _check_same(saved: Mapping[str, Any], given: Mapping[str, Any], checkpoint: Path) -> None:
    """Raise `SqueezeError` naming the first setting in which a checkpoint differs from this run."""
    before, now = dict(_flat(saved)), dict(_flat(given))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            if name == "loop.steps":
                raise SqueezeError(
                    f'"{checkpoint}" is of a run of {before.get(name)} steps, whose learning rate comes down to '
                    f"their end; it cannot become one of {now.get(name)}. Train on in another folder, with "
                    f"init={checkpoint.parent.parent}."
                )
            raise SqueezeError(
                f'"{checkpoint}" was made with {name.partition(".")[2]} = {before.get(name)} and this run has '
                f"{now.get(name)}. Use the same config, or start anew in another folder."
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
