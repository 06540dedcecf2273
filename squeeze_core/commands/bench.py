"""`squeeze bench`: speed and memory, as ratios measured in one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import SqueezeError
from .console import make_folder, say

if TYPE_CHECKING:
    from ..bench.report import Report

EXAMPLE = "squeeze bench dla gate --json bench.json"


def bench(
    parts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="encode, dla, gate, references, layout, import; none means all.", show_default=False),
    ] = None,
    json_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--json", help="Also write all numbers, sizes and the hardware to this file."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes and fewer repeats.")] = False,
) -> None:
    """Measure encoding, the DLA, the gate, attention rules and the imports on this machine."""
    from ..bench.report import run

    if json_file is not None:
        if json_file.is_dir():
            raise SqueezeError(f'"{json_file}" is a folder. Give the name of a file in it.')
        make_folder(json_file.parent)
    report = run(parts or (), quick=quick, started=lambda part: say(f"measuring {part} ..."))
    _show(report)
    if json_file is not None:
        temporary = json_file.with_name(f".{json_file.name}.tmp")
        temporary.write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(json_file)
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
