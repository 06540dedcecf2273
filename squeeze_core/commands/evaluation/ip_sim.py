"""`squeeze eval ip-sim`: XVerseBench and LAMICBench."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import SqueezeError
from .options import MODELS, Asked, ModelFolder, Models, asked

EXAMPLE = "squeeze eval ip-sim xversebench --images my_pictures --data XVerse"
SETS = ("xversebench", "lamicbench")


@asked
def ip_sim(
    given: Asked,
    benchmark: Annotated[str, typer.Argument(help="xversebench or lamicbench.")],
    models: Models = MODELS,
    detector: ModelFolder = None,
    dino: ModelFolder = None,
) -> None:
    """IP-Sim (Table E): the best of the top three detected crops against the reference.

    --data is a clone of github.com/bytedance/XVerse or github.com/Suchenl/LAMIC.
    """
    from ...evaluation.measures.ip_sim import score
    from ...vision.backbones import load_dino
    from ...vision.detector import load_detector
    from ...vision.registry import locate
    from ..console import progress_bar
    from . import scoring

    if benchmark not in SETS:
        raise SqueezeError(f'IP-Sim is measured on {" and ".join(SETS)}, not on "{benchmark}".')
    case = scoring.prepare(benchmark, given)
    other = scoring.earlier(given.against)
    folders = locate("detector", models, detector), locate("dino", models, dino)
    place, kept = scoring.device(given.device), scoring.cache(given.cache)
    finder, eyes = load_detector(folders[0], place), load_dino(folders[1], place)
    with progress_bar() as progress:
        result = score(case.generated, case.benchmark, finder, eyes, kept, progress)
    scoring.finish(result, case.folder, case.out, case.label, case.problems, other, case.benchmark)
