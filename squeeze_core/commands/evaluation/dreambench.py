"""`squeeze eval dreambench`: DINO-I, CLIP-I and CLIP-T."""

from __future__ import annotations

from .options import MODELS, Against, CacheFolder, Data, Device, Images, Label, ModelFolder, Models, Out, Run

EXAMPLE = "squeeze eval dreambench --images my_pictures --data dreambooth"


def dreambench(
    images: Images = None,
    run: Run = None,
    data: Data = None,
    models: Models = MODELS,
    dino: ModelFolder = None,
    clip: ModelFolder = None,
    out: Out = None,
    against: Against = None,
    label: Label = "",
    cache: CacheFolder = None,
    device: Device = "",
) -> None:
    """Identity and text scores on DreamBench (Table 1).

    --data is a clone of github.com/google/dreambooth.
    """
    from ...evaluation.measures.dreambench import score

    identity_and_text(
        "dreambench", score, images, run, data, models, dino, clip, out, against, label, cache, device
    )


def identity_and_text(
    name, score, images, run, data, models, dino, clip, out, against, label, cache, device
) -> None:  # the same options as above
    """What `dreambench`, `multi-subject` and `stress` share: everything but the benchmark and its measure."""
    from ...vision.backbones import load_clip, load_dino
    from ...vision.registry import locate
    from ..console import progress_bar
    from . import scoring

    case = scoring.prepare(name, images, run, data, label, out)
    other = scoring.earlier(against)
    folders = locate("dino", models, dino), locate("clip", models, clip)
    place = scoring.device(device)
    kept = scoring.cache(cache)
    eyes, reader = load_dino(folders[0], place), load_clip(folders[1], place)
    with progress_bar() as progress:
        result = score(case.generated, case.benchmark, eyes, reader, kept, progress)
    scoring.finish(result, case.folder, case.out, case.label, case.problems, other, case.benchmark)
