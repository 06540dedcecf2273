"""`squeeze eval ip-sim`: XVerseBench and LAMICBench."""

from __future__ import annotations

from typing import Annotated

import typer

from ...errors import SqueezeError
from .options import MODELS, Against, CacheFolder, Data, Device, Images, Label, ModelFolder, Models, Out, Run

EXAMPLE = "squeeze eval ip-sim xversebench --images my_pictures --data XVerse"
SETS = ("xversebench", "lamicbench")


def ip_sim(
    benchmark: Annotated[str, typer.Argument(help="xversebench or lamicbench.")],
    images: Images = None,
    run: Run = None,
    data: Data = None,
    models: Models = MODELS,
    detector: ModelFolder = None,
    dino: ModelFolder = None,
    out: Out = None,
    against: Against = None,
    label: Label = "",
    cache: CacheFolder = None,
    device: Device = "",
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
    case = scoring.prepare(benchmark, images, run, data, label, out)
    other = scoring.earlier(against)
    folders = locate("detector", models, detector), locate("dino", models, dino)
    place, kept = scoring.device(device), scoring.cache(cache)
    finder, eyes = load_detector(folders[0], place), load_dino(folders[1], place)
    with progress_bar() as progress:
        result = score(case.generated, case.benchmark, finder, eyes, kept, progress)
    scoring.finish(result, case.folder, case.out, case.label, case.problems, other, case.benchmark)
