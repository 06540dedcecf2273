"""Options that the commands of `squeeze eval` share, so that each means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Images = Annotated[
    Path | None, typer.Option(help="Folder of pictures: SUBJECT/PROMPT_SEED.png or a manifest.json.")
]
Run = Annotated[Path | None, typer.Option(help="Instead of --images: a folder made by squeeze eval generate.")]
Data = Annotated[Path | None, typer.Option(help="Your copy of the benchmark's official data.")]
Models = Annotated[Path, typer.Option(help="Where the measures' models lie, a folder each.")]
ModelFolder = Annotated[Path | None, typer.Option(help="Folder of this model, instead of one below --models.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the report; default: scores/NAME.")]
Against = Annotated[Path | None, typer.Option(help="An earlier report (.json) for a paired comparison.")]
Label = Annotated[str, typer.Option(help="What to call this run in the table.")]
CacheFolder = Annotated[Path | None, typer.Option(help="Folder of cached results; default: the user's cache.")]
Device = Annotated[str, typer.Option(help="Such as cuda, cuda:1, cpu; empty: the GPU if there is one.")]

MODELS = Path("models")
