"""`squeeze eval pose`: how much the subject's pose differs from its reference's."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import MODELS, Asked, ModelFolder, Models, asked

EXAMPLE = "squeeze eval pose --images my_pictures --data dreambooth"


@asked
def pose(
    given: Asked,
    models: Models = MODELS,
    detector: ModelFolder = None,
    orientation: ModelFolder = None,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Below it, a picture is left out.")] = 0.0,
) -> None:
    """Azimuth and polar difference and the average "recall" rate on DreamBench (Table 2).

    Each picture is compared with the reference that went into it, the first of its subject.
    """
    from ...evaluation.measures.pose import score
    from ...vision.detector import load_detector
    from ...vision.orientation import load_orientation
    from ...vision.registry import locate
    from ..console import progress_bar
    from . import scoring

    case = scoring.prepare("dreambench", given)
    other = scoring.earlier(given.against)
    folders = locate("detector", models, detector), locate("orientation", models, orientation)
    place, kept = scoring.device(given.device), scoring.cache(given.cache)
    finder, compass = load_detector(folders[0], place), load_orientation(folders[1], place)
    with progress_bar() as progress:
        result = score(case.generated, case.benchmark, finder, compass, kept, progress, min_confidence)
    scoring.finish(result, case.folder, case.out, case.label, case.problems, other, case.benchmark)
