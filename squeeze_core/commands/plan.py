"""`squeeze plan`: an instruction and pictures -> a plan file, to look at, to change and to generate with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional, get_args

import typer

from ..errors import SqueezeError
from ..picture_files import read_picture, write_picture
from . import options
from .console import make_folder, progress_bar, say

if TYPE_CHECKING:
    from ..mllm import Backbone

EXAMPLE = (
    'squeeze plan --reference a.png --reference b.png --prompt "the toy of picture 1 left of the toy of picture 2, '
    'on a beach" --size small --out plan.json'
)


def plan(
    prompt: Annotated[str, typer.Option(help="What to show; pictures are named in their order.")],
    reference: Annotated[list[Path], typer.Option(help="Picture of a subject; repeat for several.")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="JSON file to write; a picture of the plans lies beside it.")] = Path(
        "plan.json"
    ),
    mllm: options.Mllm = None,
    planner: Annotated[str, typer.Option(help="auto, mllm or rule; auto is mllm with --mllm, else rule.")] = "auto",
    trained: Annotated[
        Optional[Path],  # noqa: UP045, typer reads it at run time, on Python 3.10 too
        typer.Option(help="A trained planner for this MLLM, from squeeze export."),
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Plans that the MLLM writes from one reading.")] = 4,
    subjects: Annotated[int, typer.Option(min=0, help="How many; 0 leaves it to the planner.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same plans.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 makes one plan, the likeliest.")] = 0.7,
    tiles: Annotated[int, typer.Option(help="Tiles a picture, 1 to 12.")] = 1,
    size: Annotated[
        str, typer.Option(help="Of the rule: a word ahead of each name; toys in company are small.")
    ] = "",
    mllm_dtype: options.MllmDtype = "default",
    device: options.Device = "",
) -> None:
    """Plan a picture of several subjects: who stands where, and what each one's own words are.

    Without --mllm a rule plans: equal columns, or what words such as "left of" say between two pictures.
    """
    if out.is_dir() or out.suffix.lower() != ".json":
        raise SqueezeError(f'"{out}" is no name of a plan file. End it in .json.')
    make_folder(out.parent)
    images = [read_picture(path) for path in reference]
    from ..mllm import WeightDtype, load
    from ..planning import adapter
    from ..planning.files import write_plans
    from ..planning.picture import draw_plans
    from ..planning.planner import PLANNERS, check_request, plan_scene
    from ..planning.sentence import checked_instruction

    if planner not in PLANNERS:
        raise SqueezeError(f'The planner is "{planner}"; accepted are {", ".join(PLANNERS)}.')
    if mllm_dtype not in get_args(WeightDtype):
        raise SqueezeError(f'The dtype of the MLLM is "{mllm_dtype}"; one of {", ".join(get_args(WeightDtype))}.')
    # Whatever can be wrong is found before gigabytes are loaded.
    text = checked_instruction(prompt)
    check_request(len(images), candidates, temperature, subjects or None)
    if trained is not None and mllm is None:
        raise SqueezeError("A trained planner needs the MLLM that it was trained on: add --mllm.")
    heard = None if trained is None else adapter.load(trained)
    backbone: Optional[Backbone] = None  # noqa: UP045
    if mllm is not None and planner != "rule":
        say("Loading the MLLM ...")
        backbone = load(mllm, mllm_dtype, device=device_of(device))  # type: ignore[arg-type]  # checked above
    with progress_bar() as progress:
        planned = plan_scene(
            text,
            images,
            backbone,
            planner,  # type: ignore[arg-type]  # checked above
            candidates=candidates,
            seed=seed,
            temperature=temperature,
            subjects=subjects or None,
            tiles=tiles,
            size=size,
            adapter=heard,
            progress=lambda done, total: progress("plan", done, total),
        )
    say(planned.report())
    print(write_plans(planned.plans, out))
    print(write_picture(draw_plans(planned.plans, "Plans, the best first", text[:120]), out.with_suffix(".png")))


def device_of(name: str) -> str:
    import torch

    from .models import checked_device

    return checked_device(name) if name else "cuda" if torch.cuda.is_available() else "cpu"
