"""`squeeze eval placement`: whether subjects stand where their plans put them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .options import MODELS, ModelFolder, Models

EXAMPLE = "squeeze eval placement my_pictures --plans my_plans"


def placement(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures, NAME.png.")],
    plans: Annotated[
        Optional[Path],  # noqa: UP045, typer reads it at run time, on Python 3.10 too
        typer.Option(help="Folder of their plans, NAME.json; the same folder by default."),
    ] = None,
    models: Models = MODELS,
    detector: ModelFolder = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("scores/placement"),
    device: Annotated[str, typer.Option(help="cpu or cuda; a GPU where there is one.")] = "",
) -> None:
    """Inclusion and fill: how much of each subject lies in its region of the plan, and how much of it it covers."""
    from ...planning.placement import score
    from ...vision.detector import load_detector
    from ...vision.registry import locate
    from ..console import make_folder, progress_bar, say
    from . import scoring

    finder = load_detector(locate("detector", models, detector), scoring.device(device))
    make_folder(out)
    with progress_bar() as progress:
        means = score(pictures, plans or pictures, finder, out, progress)
    for name, value in means.items():
        say(f"{name:<10} {value:.0f}" if name == "pictures" else f"{name:<10} {value:.3f}")
    print(out / "placement.json")
