"""`squeeze export`: a run's newest checkpoint as the adapter that the nodes load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import SqueezeError
from .console import make_folder, say

EXAMPLE = "squeeze export runs/stage2 my_adapter.safetensors --dtype bf16"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of squeeze train.")],
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors.")],
    dtype: Annotated[str, typer.Option(help="fp32 as trained; bf16 or fp16 for half the size.")] = "fp32",
    average: Annotated[bool, typer.Option(help="Take the moving average, where the run keeps one.")] = True,
) -> None:
    """Write what a run has trained as an adapter file; put it into ComfyUI's models/squeeze."""
    if out.suffix != ".safetensors":
        raise SqueezeError(f'"{out.name}" must end in .safetensors.')
    if out.is_dir():
        raise SqueezeError(f'"{out}" is a folder. Give the name of a file in it.')
    if dtype not in ("fp32", "bf16", "fp16"):
        raise SqueezeError(f'The dtype is "{dtype}"; choose one of fp32, bf16, fp16.')
    make_folder(out.parent)
    from ..training.export import export as write

    checkpoint = write(run, out, dtype, average=average)  # type: ignore[arg-type]  # checked above
    say(f"From {checkpoint}, {out.stat().st_size / 1e6:,.1f} MB.")
    print(out)
