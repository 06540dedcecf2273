"""`squeeze eval dreambench-plus`: MLLM judges."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import SqueezeError
from .options import Asked, asked

EXAMPLE = "squeeze eval dreambench-plus --images my_pictures --data dreambench_plus/data --judge InternVL3-8B-hf"


@asked
def dreambench_plus(
    given: Asked,
    judge: Annotated[list[Path], typer.Option(help="Folder of an MLLM; repeat for several, which are averaged.")],
    tiles: Annotated[int, typer.Option(min=1, max=12, help="Tiles a judge sees of each picture.")] = 1,
    attempts: Annotated[int, typer.Option(min=1, help="Answers before a score counts as missing.")] = 4,
    dtype: Annotated[str, typer.Option(help="Of the judges: default, fp32, bf16, fp16, fp8_e4m3fn.")] = "default",
) -> None:
    """How well MLLMs find the subject kept, 0 to 4, on DreamBench++ (Table 4): animals and objects.

    --data is the data folder of github.com/yuangpeng/dreambench_plus. --images may also be a method's folder as
    DreamBench++'s own scripts write it.
    """
    from ...evaluation import benchmarks
    from ...evaluation.judging import JudgeSettings
    from ...evaluation.measures.dreambench_plus import Judge, collect, score
    from ...evaluation.runs import check_made_for
    from ...mllm import load
    from ..console import progress_bar
    from . import scoring

    missing = [folder for folder in judge if not (folder / "config.json").is_file()]
    if missing:
        raise SqueezeError(
            f'There is no MLLM in "{missing[0]}". Give the folder of an InternVL3 (-hf) or a Qwen2.5-VL, or fetch '
            f"one: hf download OpenGVLab/InternVL3-8B-hf --local-dir {missing[0]}"
        )
    folder, data, label = scoring.resolve(given.images, given.run, given.data, given.label)
    if data is None:
        raise SqueezeError("Give --data, the folder of your copy of DreamBench++'s data.")
    benchmark = benchmarks.read("dreambench-plus", data)
    check_made_for(folder, benchmark, "--images" if given.run is None else "--run")
    generated, problems = collect(folder, benchmark)
    pictures = folder / "tgt_image" if (folder / "tgt_image").is_dir() else folder
    out = scoring.report_folder(given.out, pictures)
    other = scoring.earlier(given.against)
    place = scoring.device(given.device)
    kind: Any = dtype  # checked by load
    judges = [Judge(name, partial(load, path, kind, device=place)) for name, path in _named(judge).items()]
    settings = JudgeSettings(tiles=tiles, attempts=attempts)
    with progress_bar() as progress:
        result = score(generated, benchmark, judges, scoring.cache(given.cache), progress, settings)
    scoring.finish(result, pictures, out, label, [*problems, *benchmark.problems], other, benchmark)
    if not any(result.counted(one.name) for one in judges):
        raise SqueezeError(
            "No judge gave a score for any picture; the report holds what they said instead. Take an MLLM that "
            "follows instructions, such as InternVL3-8B."
        )


def _named(folders: list[Path]) -> dict[str, Path]:
    """Each folder by its name; by its parent's as well where two have the same."""
    names = [folder.resolve().name for folder in folders]
    return {
        name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}": folder
        for name, folder in zip(names, folders)
    }
