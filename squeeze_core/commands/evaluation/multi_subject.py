"""`squeeze eval multi-subject`: MSIC's measures over 1 to 12 subjects, on a stand-in set."""

from __future__ import annotations

from .dreambench import identity_and_text
from .options import MODELS, Against, CacheFolder, Data, Device, Images, Label, ModelFolder, Models, Out, Run

EXAMPLE = "squeeze eval multi-subject --run runs/several --data dreambooth"


def multi_subject(
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
    """DINO, CLIP-I and CLIP-T by number of subjects, on a stand-in for MSIC, which was not released.

    --data is a clone of github.com/google/dreambooth, whose subjects the set is drawn from.
    """
    from ...evaluation.measures.multi_subject import score

    identity_and_text(
        "multi-subject", score, images, run, data, models, dino, clip, out, against, label, cache, device
    )
