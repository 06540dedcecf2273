"""`squeeze train`: stage 0, 1, 2 or an ablation, from a config, on whatever torchrun or accelerate started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .console import make_folder, say

if TYPE_CHECKING:
    from ..training.config_files import AnyConfig
    from ..training.distillation.task import DistillTask
    from ..training.planner.task import PlannerTask
    from ..training.squeeze_task import SqueezeTask

EXAMPLE = "squeeze train configs/squeeze_stage1.yaml --out runs/stage1 data.0.folder=/data/UNO-1M"

INTERRUPTED = 130  # what shells expect after Ctrl-C


def train(
    config: Annotated[Path, typer.Argument(help="A YAML config; the shipped ones lie in configs/.")],
    changes: options.Changes = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("run"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint, if any.")] = False,
) -> None:
    """Train an adapter, or a planner.

    Ctrl-C saves and ends with status 130; --resume goes on, also after a kill, as if never stopped. On several
    GPUs: accelerate launch --num_processes 8 -m squeeze_core.cli train ...
    """
    from ..training.config_files import load_config
    from ..training.loop import check_folder, check_processes, leave_processes

    settings = load_config(config, changes or ())
    check_processes(settings)
    main = os.environ.get("RANK", "0") == "0"
    if main:
        check_folder(out, resume)  # before gigabytes are loaded
        for cache in (getattr(settings, name, None) for name in ("latent_cache", "words_cache")):
            if cache:
                make_folder(Path(cache).expanduser())
    interrupted = _run(settings, out, resume, main)
    leave_processes()
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _run(settings: AnyConfig, out: Path, resume: bool, main: bool) -> bool:
    """Load, train and say so; whether it was interrupted."""
    from ..toyworld import training as toys
    from ..training.build import squeeze_task
    from ..training.config import TrainConfig
    from ..training.distillation.build import distill_task
    from ..training.loop import Trainer
    from ..training.planner.build import planner_task
    from ..training.planner.config import PlannerTraining

    if main:
        say("Loading the models ...")
    task: SqueezeTask | DistillTask | PlannerTask
    if isinstance(settings, TrainConfig):
        task = squeeze_task(settings, places=toys.PLACES, openers=toys.OPENERS)
    elif isinstance(settings, PlannerTraining):
        task = planner_task(settings, places=toys.PLACES)
    else:
        task = distill_task(settings, places=toys.PLACES, openers=toys.TOLD_OPENERS, teachers=toys.TEACHERS)
    try:
        with _bar(main) as progress:
            result = Trainer(task, settings, out, progress=progress).run(resume)
    finally:
        if task.walk.broken:
            listed = out / ("broken.txt" if main else f"broken_{os.environ['RANK']}.txt")
            lines = [f"{key}\t{reason}\n" for key, reason in sorted(task.walk.broken.items())]
            listed.write_text("".join(lines), encoding="utf-8")
            say(f"{len(lines)} broken example(s) were skipped; see {listed}.")
    if main:
        done = "stopped and saved" if result.interrupted else "done"
        say(f"{done} at step {result.step} of {settings.steps}.")
        print(out)
    return result.interrupted


@contextmanager
def _bar(shown: bool) -> Iterator[Callable[[int, int, float], None] | None]:
    """Steps and the loss on stderr."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
    with Progress(*columns, TimeElapsedColumn(), Remaining(), console=Console(stderr=True)) as bars:
        bar = bars.add_task("train", total=None, loss="")

        def report(step: int, steps: int, loss: float) -> None:
            bars.update(bar, completed=step, total=steps, loss=f"loss {loss:.4f}")

        yield report
