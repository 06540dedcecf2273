"""`squeeze eval compare`: two reports, case by case."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import SqueezeError

EXAMPLE = "squeeze eval compare scores/a/dreambench_dino_i.json scores/b/dreambench_dino_i.json"


def compare(
    first: Annotated[Path, typer.Argument(help="Report of the run to compare with.")],
    second: Annotated[Path, typer.Argument(help="Report of the run in question.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("scores/comparison"),
) -> None:
    """Paired comparison of two runs of the same measure: differences, intervals, wins and losses."""
    from ...evaluation import report
    from ..console import make_folder

    before, after = report.read(first), report.read(second)
    if not {metric.key for metric in before.metrics} & {metric.key for metric in after.metrics}:
        raise SqueezeError(
            f"The reports ({before.benchmark}, {after.benchmark}) have no measure in common. "
            "Give two of the same measure."
        )
    make_folder(out)
    for path in report.write(after, out, None, before):
        print(path)
