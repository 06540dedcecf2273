"""`squeeze eval plans`: a planner's plans against the right ones."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = "squeeze eval plans my_plans --truth right_plans"


def plans(
    folder: Annotated[Path, typer.Argument(help="Plan files of squeeze plan, NAME.json; the first plan counts.")],
    truth: Annotated[Path, typer.Option(help="The right plan of each scene, under the same name.")],
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("scores/plans"),
) -> None:
    """Subjects present, names and relations right, IoU on the grid; how many plans parse and pass the checks."""
    from ...files import write_text
    from ...planning.measures import PlanScore, score_folders
    from ..console import make_folder, say

    make_folder(out)
    mean, rows = score_folders(folder, truth)
    each = {name: asdict(row) if isinstance(row, PlanScore) else {"problem": row} for name, row in rows.items()}
    write_text(out / "plans.json", json.dumps({"mean": mean.as_dict(), "scenes": each}, indent=1) + "\n")
    for name, value in mean.as_dict().items():
        said = "-" if value is None else str(value) if name == "scenes" else f"{value:.3f}"
        say(f"{name:<10} {said}")
    print(out / "plans.json")
