"""`squeeze toyworld`: write the toy world and say where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .console import say

EXAMPLE = "squeeze toyworld --out toyworld"


def toyworld(
    out: Annotated[Optional[Path], typer.Option(help="Folder; without it, the cache folder.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
) -> None:
    """Write the tiny models (FLUX, VAE, MLLM, adapter) to a folder and print it."""
    from .. import toyworld as world

    paths = world.build(out, seed)
    say(f"Toy world: {world.NOTICE}.")
    print(paths.folder)
