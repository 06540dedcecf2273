"""`squeeze eval reasoning`: text following on the benchmark of appendix G, and `build`, which makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...errors import SqueezeError
from .. import add_command
from .options import MODELS, Asked, ModelFolder, Models, asked

EXAMPLE = "squeeze eval reasoning --run runs/mllm_only --beside runs/gated --data reasoning"
_BUILD_EXAMPLE = "squeeze eval reasoning build --composites my_pictures --data dreambooth --out reasoning"


def GROUP() -> typer.Typer:
    """Scoring without a further word, and `build`."""
    program = typer.Typer(invoke_without_command=True, rich_markup_mode=None, callback=reasoning)
    add_command(program, "build", build, f"Example: {_BUILD_EXAMPLE}")
    return program


@asked
def reasoning(
    given: Asked,
    context: typer.Context,
    beside: Annotated[
        Path | None, typer.Option(help="A second run, reported beside, such as the gated one.")
    ] = None,
    models: Models = MODELS,
    clip: ModelFolder = None,
) -> None:
    """CLIP-T where the prompt means an accessory in the reference, not its main subject (Table 3).

    --data is a folder made by `squeeze eval reasoning build`. The paper's pictures of this kind come from the MLLM
    alone, as `squeeze eval generate reasoning` makes them; for a gated run beside, give it --tau-1 and --tau-2.
    """
    if context.invoked_subcommand is not None:
        return
    from ...evaluation.measures.reasoning import GATED, MLLM_ONLY, score
    from ...vision.backbones import load_clip
    from ...vision.registry import locate
    from ..console import progress_bar, say
    from . import scoring

    case = scoring.prepare("reasoning", given)
    second, second_label = None, ""
    if beside is not None:
        data = given.data or _data_of(given.run)
        second = scoring.prepare("reasoning", Asked(beside, None, data, case.out / "beside"), "--beside")
        second_label = GATED if _is_gated(beside) else second.label
    other = scoring.earlier(given.against)
    clip = locate("clip", models, clip)
    kept, reader = scoring.cache(given.cache), load_clip(clip, scoring.device(given.device))
    alone = given.run is None or _is_mllm_only(given.run)
    if not alone:
        say("This run is gated: the paper's Table 3 is of the MLLM alone (--tau-1 0 --tau-2 0).")
    # What other tools made is called by its folder: nothing says how it was generated.
    first_label = given.label or (MLLM_ONLY if given.run is not None and alone else case.label)
    with progress_bar() as progress:
        first = score(case.generated, case.benchmark, reader, kept, progress, first_label)
        compared = None
        if second is not None:
            compared = score(second.generated, second.benchmark, reader, kept, progress, second_label)
    scoring.finish(first, case.folder, case.out, first_label, case.problems, other, case.benchmark)
    if second is not None and compared is not None:
        scoring.finish(compared, second.folder, second.out, second_label, second.problems, first, second.benchmark)


def build(
    composites: Annotated[
        Path, typer.Option(help="Pictures of DreamBench's prompts by any method: SUBJECT/PROMPT_SEED.png.")
    ],
    data: Annotated[Path, typer.Option(help="A clone of github.com/google/dreambooth.")],
    out: Annotated[Path, typer.Option(help="The new folder.")] = Path("reasoning"),
    one: Annotated[int, typer.Option(min=0, help="Samples with one reference.")] = 170,
    two: Annotated[int, typer.Option(min=0, help="Samples with two.")] = 180,
    seed: Annotated[int, typer.Option(min=0, help="The same one chooses the same samples.")] = 0,
) -> None:
    """Make the benchmark from composites ("a cat wearing a hat") and DreamBench, and sheets to check by eye."""
    from ...evaluation import benchmarks
    from ...evaluation.benchmarks import reasoning as making
    from ...evaluation.generated_files import collect
    from ...evaluation.runs import check_made_for
    from ..console import say

    if not one and not two:
        raise SqueezeError("--one and --two are both 0, which makes no sample. Give 1 or more of either.")
    dreambench = benchmarks.read("dreambench", data)
    check_made_for(composites, dreambench, "--composites")
    found, _ = collect(composites, dreambench)
    usable = making.eligible(found)
    say(f"{len(usable)} of {len(found)} composites show a subject with an accessory.")
    path = making.build(found, dreambench, out, one=one, two=two, seed=seed)
    say(f"Look at {out}/review_*.jpg and delete samples from {path.name} whose picture does not show what it says.")
    print(path)


def _is_mllm_only(run: Path) -> bool:
    from ...evaluation.runs import read_run

    gate = read_run(run).get("gate")
    return isinstance(gate, list) and len(gate) >= 2 and gate[0] <= 0 and gate[1] <= 0


def _is_gated(folder: Path) -> bool:
    """Whether a run.json says that references joined; of other tools' folders nothing is known."""
    from ...evaluation.runs import RUN

    return (folder / RUN).is_file() and not _is_mllm_only(folder)


def _data_of(run: Path | None) -> Path | None:
    from ...evaluation.runs import read_run

    if run is None:
        raise SqueezeError("Give --data, the folder made by squeeze eval reasoning build.")
    data = read_run(run).get("data")
    return Path(data) if data else None
