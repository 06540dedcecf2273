"""`squeeze toyworld`: write the toy world and say where it is; `squeeze toyworld train`: make its weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from ..errors import SqueezeError
from .console import say

EXAMPLE = "squeeze toyworld --out toyworld; squeeze toyworld train --only vae --out runs/toy"

INTERRUPTED = 130  # what shells expect after Ctrl-C


def toyworld(
    action: Annotated[
        str, typer.Argument(help="build writes the models; train makes their weights; measure fills the table.")
    ] = "build",
    changes: Annotated[
        Optional[list[str]],  # noqa: UP045, typer reads it at run time, on Python 3.10 too
        typer.Argument(metavar="[KEY=VALUE]...", help="train: changes to the configs, such as steps=100."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder; build alone has one, the cache folder.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(min=0, help="build: of the random weights.")] = 0,
    only: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="train: vae, mllm, flux, stage1 or stage2, without it all in this order; table6_single and the "
            "like for a row of the table. measure: rows of one of the paper's tables, such as C; plans: several "
            "toys by plan, of the weights that are shipped; stage0: trains and measures what stage 0 brings."
        ),
    ] = None,
    configs: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="train: folder of toy_vae.yaml and the others; without it, the repository's configs."),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="measure: test pairs a row and seed.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="measure: how many seeds.")] = 1,
    dtype: Annotated[
        str, typer.Option(help="measure: of FLUX and VAE: default (fp32), fp32, bf16, fp16.")
    ] = "default",
    adapter: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="measure --only plans: another adapter than the shipped one, with a plan by hand."),
    ] = None,
    document: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="measure: Markdown file to put the table into, such as docs/toyworld.md."),
    ] = None,
) -> None:
    """Write the tiny models (FLUX, VAE, MLLM, adapter) to a folder and print it; or train and measure them.

    Training and measuring go on where they stopped: run the same command again.
    """
    if action == "train":
        _train(changes or [], out, only, configs)
    elif action == "measure" and not changes:
        _measure(out, only, pairs, seeds, dtype, document, adapter)
    elif action != "build" or changes:
        raise SqueezeError(
            f'"{" ".join([action, *(changes or [])])}" is nothing to do; write build, train or measure.'
        )
    else:
        from .. import toyworld as world

        paths = world.build(out, seed)
        say(f"Toy world: {world.NOTICES[world.is_trained(paths)]}.")
        print(paths.folder)


def _train(changes: list[str], out: Path | None, only: str | None, configs: Path | None) -> None:
    from ..toyworld.making import run
    from ..training.loop import leave_processes

    if out is None:
        raise SqueezeError("Training needs a folder for its runs: add --out runs/toy.")
    for part in (only,) if only else run.ORDER:
        with _bar(part) as progress:
            result = run.train_part(part, out, configs=configs or run.CONFIGS, changes=changes, progress=progress)
        say(f"{part}: {'stopped and saved' if result.interrupted else 'done'} at step {result.step}.")
        if result.interrupted:
            raise typer.Exit(INTERRUPTED)
    leave_processes()
    print(out / "world")


def _measure(
    out: Path | None,
    only: str | None,
    pairs: int,
    seeds: int,
    dtype: Any,
    document: Path | None,
    adapter: Path | None,
) -> None:
    from ..shard import parse_shard
    from ..toyworld.making import table
    from .console import progress_bar

    if out is None:
        raise SqueezeError("Measuring needs the folder of squeeze toyworld train: add --out runs/toy.")
    if adapter is not None and only != "plans":
        raise SqueezeError("Another adapter is measured with --only plans.")
    if only == "plans":
        _measure_plans(out, pairs, range(seeds), document, adapter)
        return
    if only == "stage0":
        _measure_stage_0(out, range(seeds), document)
        return
    chosen = [row for row in table.rows() if only is None or only in row.table.split(", ")]
    if not chosen:
        raise SqueezeError(f'No row is of table "{only}". Choose one of 1, 2, 3, 6, 7, A, C, plans or stage0.')
    if document is not None:
        table.around(document)  # before hours of measuring
    shard = parse_shard("")
    with progress_bar() as report:
        table.fill(out, chosen, pairs=pairs, seeds=range(seeds), dtype=dtype, shard=shard, progress=report)
    if shard.count > 1:
        say(f"This is part {shard.index} of {shard.count}. Run it once more as one process for the table.")
        return
    made = table.markdown(out, chosen, pairs=pairs, seeds=range(seeds), dtype=dtype)
    for name in ("fig3b_text", "fig3b_picture") if only is None else ():
        given = table.layer_importance(out, name)
        if given is not None:
            made += f"\n{name}, layers 0 to {len(given) - 1}: {', '.join(f'{share:.2f}' for share in given)}\n"
    print(made, end="")
    if document is not None:
        table.write_into(document, made)


def _measure_plans(
    out: Path, pairs: int, seeds: Sequence[int], document: Path | None, adapter: Path | None
) -> None:
    from .. import toyworld as world
    from ..pipeline import SqueezePipeline
    from ..toyworld.making import many, table
    from .console import progress_bar

    if document is not None:
        table.around(document)
    measured = out / "measured"
    rows: Sequence[many.Row] = many.rows()
    best: Sequence[int] = many.BEST_TOYS
    if adapter is None:
        pipeline = SqueezePipeline.from_toy_world(world.load(), device="cpu")
    else:
        paths = world.build()
        pipeline = SqueezePipeline.from_files(paths.flux, paths.vae, paths.mllm, adapter, fuse=True)
        rows, best = [row for row in rows if row.planned == "hand" and not row.against], ()
    with progress_bar() as report:
        many.fill(measured, pipeline, rows, pairs=pairs, seeds=seeds, progress=report)
        for toys in best:
            many.fill_best_of(measured, pipeline, toys, pairs=pairs, seeds=seeds, progress=report)
    made = many.markdown(measured, rows, pairs=pairs, seeds=seeds)
    print(made, end="")
    if document is not None:
        table.write_into(document, made)


def _measure_stage_0(out: Path, seeds: Sequence[int], document: Path | None) -> None:
    from ..toyworld.making import distilling, table

    if document is not None:
        table.around(document, "stage0")
    for seed in seeds:
        distilling.fill(out, seed, said=say)
    made = distilling.markdown(out, seeds)
    print(made, end="")
    if document is not None:
        table.write_into(document, made, "stage0")


@contextmanager
def _bar(part: str) -> Iterator[Callable[[int, int, float], None]]:
    """Steps and the loss on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(part), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=_helps()) as bars:
        bar = bars.add_task(part, total=None, loss=float("nan"))

        def report(step: int, steps: int, loss: float) -> None:
            bars.update(bar, completed=step, total=steps, loss=loss)

        yield report


def _helps() -> bool:
    """Whether this is not the first of several processes."""
    return os.environ.get("RANK", "0") != "0"
