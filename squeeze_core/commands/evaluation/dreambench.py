"""`squeeze eval dreambench`: DINO-I, CLIP-I and CLIP-T."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .options import MODELS, Asked, ModelFolder, Models, asked

if TYPE_CHECKING:
    from ...evaluation.results import Result

EXAMPLE = "squeeze eval dreambench --images my_pictures --data dreambooth"


@asked
def dreambench(
    given: Asked,
    models: Models = MODELS,
    dino: ModelFolder = None,
    clip: ModelFolder = None,
) -> None:
    """Identity and text scores on DreamBench (Table 1).

    --data is a clone of github.com/google/dreambooth.
    """
    from ...evaluation.measures.dreambench import score

    identity_and_text("dreambench", score, given, models, dino, clip)


def identity_and_text(
    name: str, score: Callable[..., Result], given: Asked, models: Path, dino: Path | None, clip: Path | None
) -> None:
    """What `dreambench`, `multi-subject` and `stress` share: everything but the benchmark and its measure."""
    from ...vision.backbones import load_clip, load_dino
    from ...vision.registry import locate
    from ..console import progress_bar
    from . import scoring

    case = scoring.prepare(name, given)
    other = scoring.earlier(given.against)
    folders = locate("dino", models, dino), locate("clip", models, clip)
    place = scoring.device(given.device)
    kept = scoring.cache(given.cache)
    eyes, reader = load_dino(folders[0], place), load_clip(folders[1], place)
    with progress_bar() as progress:
        result = score(case.generated, case.benchmark, eyes, reader, kept, progress)
    scoring.finish(result, case.folder, case.out, case.label, case.problems, other, case.benchmark)
