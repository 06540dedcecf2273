"""`squeeze eval toyworld`: DINO-like scores beside the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import SqueezeError
from .options import Device

if TYPE_CHECKING:
    import numpy as np

EXAMPLE = "squeeze eval toyworld --count 32"


def toyworld(
    count: Annotated[int, typer.Option(min=1, help="Pairs of reference and prompt.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="The same one draws the same pairs.")] = 0,
    dino: Annotated[
        Path | None, typer.Option(help="Folder of DINO; without it, an untrained network looks.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Write references and prompts to this new folder instead, for generate.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A folder made by squeeze eval generate toyworld, shown beside.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="With --run: the folder that --prompts wrote.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("scores/toyworld"),
    device: Device = "",
) -> None:
    """What a DINO-like score rewards where identity, prompt following and pose are known exactly.

    Made-up generators with known faults are always shown: copying the reference raises the score. With --run,
    pictures of the toy prompts stand beside them (squeeze eval toyworld --prompts toy; squeeze eval generate
    toyworld --data toy --out runs/toy). Without --dino, a folder of DINO, an untrained network of its architecture
    looks.
    """
    from ...evaluation import benchmarks
    from ...evaluation.benchmarks import toyworld as files
    from ...evaluation.measures import toyworld as measure
    from ...evaluation.runs import check_made_for
    from ...files import write_text
    from ..console import make_folder, progress_bar, say
    from . import scoring

    if prompts is not None:
        if run is not None:
            raise SqueezeError("--prompts only writes a folder, and --run is measured. Give one of them.")
        files.write(prompts, count, seed)
        print(prompts)
        return
    asked_of = None
    if run is not None:
        _, data, label = scoring.resolve(None, run, data, "")
        if data is None:
            raise SqueezeError("Give --data, the folder that squeeze eval toyworld --prompts wrote.")
        asked_of = files.settings_of(data)
        count, seed = asked_of.count, asked_of.seed
        check_made_for(run, benchmarks.read("toyworld", data), "--run")
    make_folder(out)
    if dino is None:
        encoder: measure.PictureEncoder = measure.UntrainedViT()
    else:
        from ...vision.backbones import load_dino

        encoder = load_dino(dino, scoring.device(device))
    with progress_bar() as progress:
        results = measure.demonstrate(encoder, count, seed, progress)
        if run is not None and data is not None:
            made, pairs = _pictures(run, data)
            results[label] = measure.score(made, pairs, encoder, label=label, progress=progress)
    text = measure.markdown(results)
    data_of = {name: result.as_dict() for name, result in results.items()}
    write_text(out / "toyworld.json", json.dumps(data_of, indent=1) + "\n")
    write_text(out / "toyworld.md", text)
    say(text)
    print(out / "toyworld.json")
    print(out / "toyworld.md")


def _pictures(run: Path, data: Path) -> tuple[list[np.ndarray], list]:
    """The run's pictures at the toy world's size, and their pairs; missing ones are left out."""
    import numpy as np
    from PIL import Image

    from ...evaluation import benchmarks, pictures
    from ...evaluation.benchmarks.toyworld import settings_of
    from ...evaluation.generated_files import collect
    from ...evaluation.measures.toyworld import pairs
    from ...toyworld.scenes import SIDE
    from ..console import say

    found, problems = collect(run, benchmarks.read("toyworld", data))
    settings = settings_of(data)
    every = pairs(settings.count, settings.seed)
    made, asked = [], []
    for one in found:
        picture, odd = pictures.read(one.path, one.name)
        problems += odd
        if picture is not None:
            made.append(np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)))
            asked.append(every[int(one.sample.subject)])
    for problem in problems:
        say(str(problem))
    if not made:
        raise SqueezeError(f'Not one picture of "{run}" could be read; the lines above say why.')
    return made, asked
