"""`squeeze bench`: speed and memory, as ratios measured in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import SqueezeError
from ..files import write_text
from .console import make_folder, say

if TYPE_CHECKING:
    from ..bench.report import Report

EXAMPLE = "squeeze bench dla gate --json bench.json"


_STEP = "A training step (squeeze bench train)"


def bench(
    parts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="encode, dla, gate, references, layout, import; none means all. Or train, alone: a training step.",
            show_default=False,
        ),
    ] = None,
    json_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Also write all numbers, sizes and the hardware to this file."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes and fewer repeats.")] = False,
    size: Annotated[str, typer.Option(help="Of the models: full or tiny.", rich_help_panel=_STEP)] = "full",
    stage: Annotated[int, typer.Option(min=0, max=2, rich_help_panel=_STEP)] = 2,
    batch: Annotated[int, typer.Option(min=1, help="Samples a step.", rich_help_panel=_STEP)] = 16,
    calls: Annotated[str, typer.Option(help="few, mask, group or each.", rich_help_panel=_STEP)] = "few",
    checkpointing: Annotated[
        str, typer.Option(help="on, off, auto, or a number of blocks.", rich_help_panel=_STEP)
    ] = "on",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile FLUX's blocks.", rich_help_panel=_STEP)
    ] = False,
    base: Annotated[str, typer.Option(help="as_is, int8 or nf4.", rich_help_panel=_STEP)] = "as_is",
    rank: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Of the LoRA; the size's own by default.", rich_help_panel=_STEP),
    ] = None,
    series: Annotated[
        bool, typer.Option("--series", help="What each saving brings, one after the other.", rich_help_panel=_STEP)
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, rich_help_panel=_STEP)] = 5,
    peak: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Dense bf16 TFLOP/s of the GPU, where its name does not tell.", rich_help_panel=_STEP),
    ] = None,
) -> None:
    """Measure encoding, the DLA, the gate, attention rules and the imports on this machine; or a training step."""
    if parts and "train" in parts:
        if parts != ["train"]:
            raise SqueezeError('"train" is measured alone, as it fills a GPU. Run it by itself.')
        from ..bench import training

        if json_file is not None:
            make_folder(json_file.parent)
        options = ["--size", size, "--stage", str(stage), "--batch", str(batch), "--calls", calls, "--base", base]
        options += ["--checkpointing", checkpointing, "--repeats", str(2 if quick else repeats)]
        options += ["--compile"] * compiled + ["--series"] * series
        options += ["--rank", str(rank)] if rank is not None else []
        options += ["--peak", str(peak)] if peak is not None else []
        options += ["--json", str(json_file)] if json_file is not None else []
        training.main(options)
        return
    from ..bench.report import run

    if json_file is not None:
        if json_file.is_dir():
            raise SqueezeError(f'"{json_file}" is a folder. Give the name of a file in it.')
        make_folder(json_file.parent)
    report = run(parts or (), quick=quick, started=lambda part: say(f"measuring {part} ..."))
    _show(report)
    if json_file is not None:
        write_text(json_file, json.dumps(report.as_dict(), indent=2) + "\n")
        say(f"Numbers: {json_file}")


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    where = report.hardware
    table = Table(
        title=f"{where['device']} ({where['cpu']}), torch {where['torch']}", caption=f"Clock: {where['clock']}."
    )
    table.add_column("part")
    table.add_column("what")
    for name in ("measured", "at most", ""):
        table.add_column(name, justify="right")
    for part, meaning, value, limit in report.rows():
        held = "" if limit is None else "ok" if value <= limit else "over"
        table.add_row(part, meaning, f"{value:.3g}", "" if limit is None else f"{limit:g}", held)
    Console(highlight=False).print(table)
