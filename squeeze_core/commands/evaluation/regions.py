"""`squeeze eval regions`: several subjects, each in its own region."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from ...errors import SqueezeError
from .options import MODELS, Asked, ModelFolder, Models, asked

EXAMPLE = "squeeze eval regions multi-subject --run runs/several --data dreambooth"
SETS = ("multi-subject", "xversebench", "lamicbench")


@asked
def regions(
    given: Asked,
    benchmark: Annotated[str, typer.Argument(help="multi-subject, xversebench or lamicbench.")],
    models: Models = MODELS,
    detector: ModelFolder = None,
    dino: ModelFolder = None,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=-1, max=1, help="DINO cosine below which a subject is not itself; none by default."),
    ] = None,
) -> None:
    """Found, kept, swapped and fused subjects, by their boxes: what a mean over the whole picture cannot see."""
    from ...evaluation.measures.regions import score
    from ...vision.backbones import load_dino
    from ...vision.detector import load_detector
    from ...vision.registry import locate
    from ..console import progress_bar
    from . import scoring

    if benchmark not in SETS:
        raise SqueezeError(f'Regions are measured on {", ".join(SETS)}, not on "{benchmark}".')
    case = scoring.prepare(benchmark, given)
    other = scoring.earlier(given.against)
    folders = locate("detector", models, detector), locate("dino", models, dino)
    place, kept = scoring.device(given.device), scoring.cache(given.cache)
    finder, eyes = load_detector(folders[0], place), load_dino(folders[1], place)
    with progress_bar() as progress:
        result = score(case.generated, case.benchmark, finder, eyes, kept, progress, threshold)
    scoring.finish(result, case.folder, case.out, case.label, case.problems, other, case.benchmark)
