"""`squeeze convert ...`: weights that others published -> adapter files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import SqueezeError
from . import add_command
from .console import make_folder, say

EXAMPLE = (
    "squeeze convert x2i qwen2.5-vl-7b_proj.pt --mllm models/LLM/Qwen2.5-VL-7B-Instruct "
    "models/squeeze/x2i_qwen2.5-vl-7b.safetensors"
)


def GROUP() -> typer.Typer:
    program = typer.Typer(no_args_is_help=True, help="Turn published weights into adapter files.")
    add_command(program, "x2i", x2i, f"Example: {EXAMPLE}")

    # With one command only, typer would make it the group itself.
    @program.callback()
    def group() -> None:
        """Turn published weights into adapter files."""

    return program


def x2i(
    file: Annotated[Path, typer.Argument(help="X2I's aligner as downloaded, such as qwen2.5-vl-7b_proj.pt.")],
    out: Annotated[Path, typer.Argument(help="File to write, .safetensors, for ComfyUI's models/squeeze.")],
    mllm: Annotated[Path, typer.Option(help="Folder of the MLLM that the aligner was trained for.")],
    text: Annotated[str, typer.Option(help="dictionary, as it was trained; plain, as its scripts.")] = "dictionary",
    picture: Annotated[
        str, typer.Option(help="Pixels of pictures: 224, as its nodes; 128, as its scripts.")
    ] = "224",
    pad_side: Annotated[str, typer.Option(help="left, as in its training, or right.")] = "left",
    system_prompt: Annotated[Optional[str], typer.Option(help="Instead of the MLLM's own.")] = None,  # noqa: UP045
) -> None:
    """Turn an aligner of X2I into an adapter without a LoRA. Nothing in the file is run."""
    if out.suffix != ".safetensors":
        raise SqueezeError(f'"{out.name}" must end in .safetensors.')
    if out.is_dir():
        raise SqueezeError(f'"{out}" is a folder. Give the name of a file in it.')
    from ..x2i import convert

    make_folder(out.parent)
    config = convert(file, mllm, out, text=text, picture=picture, pad_side=pad_side, system_prompt=system_prompt)
    say(f"For {config.mllm.name}: {config.dla.layers} layers of width {config.dla.hidden}.")
    print(out)
