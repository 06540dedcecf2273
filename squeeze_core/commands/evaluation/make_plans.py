"""`squeeze eval make-plans`: an MLLM plans the scenes of a data set, for `squeeze eval plans`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from .. import options

EXAMPLE = "squeeze eval make-plans data/music --mllm InternVL3-8B-hf --trained my_planner.safetensors --out planned"


def make_plans(
    data: Annotated[
        Path, typer.Argument(help="What squeeze data build made; better of another seed than trained on.")
    ],
    mllm: options.Mllm = None,
    trained: Annotated[
        Optional[Path],  # noqa: UP045, typer reads it at run time, on Python 3.10 too
        typer.Option(help="A trained planner for this MLLM; without it the MLLM plans as it is."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for plans/ and truth/, a file a scene each.")] = Path("planned"),
    count: Annotated[int, typer.Option(min=1, help="Scenes, the first ones.")] = 100,
    candidates: Annotated[int, typer.Option(min=1, help="Plans of each scene.")] = 1,
    temperature: Annotated[float, typer.Option(help="0 makes one plan, the likeliest.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    mllm_dtype: options.MllmDtype = "default",
    device: options.Device = "",
) -> None:
    """Write the plans of an MLLM, or of the rule without one, and the right ones, under equal names.

    A scene whose plan is there is not planned again. One of which no candidate can be used gets no plan.
    """
    from ...data.sources.music import Music
    from ...errors import SqueezeError
    from ...mllm import load
    from ...planning import adapter
    from ...planning.files import write_plans
    from ...planning.plan import ScenePlan
    from ...planning.planner import plan_scene
    from ..console import make_folder, progress_bar, say
    from ..plan import device_of

    if trained is not None and mllm is None:
        raise SqueezeError("A trained planner needs the MLLM that it was trained on: add --mllm.")
    examples = Music(data)
    heard = None if trained is None else adapter.load(trained)
    backbone = None if mllm is None else load(mllm, mllm_dtype, device=device_of(device))  # type: ignore[arg-type]
    for name in ("plans", "truth"):
        make_folder(out / name)
    total, failed = min(count, len(examples)), []
    with progress_bar() as progress:
        for number in range(total):
            example = examples[number]
            right = ScenePlan.parse(example.plan)
            write_plans([right], out / "truth" / f"{example.name}.json")
            path = out / "plans" / f"{example.name}.json"
            if not path.is_file():
                try:
                    planned = plan_scene(
                        example.prompt,
                        example.references,
                        backbone,
                        "auto" if backbone is None else "mllm",
                        candidates=candidates,
                        seed=seed,
                        temperature=temperature,
                        subjects=len(example.references),
                        adapter=heard,
                    )
                    write_plans(planned.plans, path)
                except SqueezeError as error:
                    failed.append(f"{example.name}: {error}")
            progress("plans", number + 1, total)
    for line in failed[:5]:
        say(line)
    say(f"{total - len(failed)} of {total} scenes are planned. Score them: squeeze eval plans {out / 'plans'}")
    print(out)
