"""`squeeze eval stress`: appendix K.1's two kinds of hard prompts."""

from __future__ import annotations

from .dreambench import identity_and_text
from .options import MODELS, Against, CacheFolder, Data, Device, Images, Label, ModelFolder, Models, Out, Run

EXAMPLE = "squeeze eval stress --run runs/stress --data dreambooth"


def stress(
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
    """Several instances of the subject, and long attribute lists: DINO-I, CLIP-I, CLIP-T by kind.

    The paper prints its own prompts in a figure only; these were written for this set.
    """
    from ...evaluation.measures.dreambench import score

    identity_and_text("stress", score, images, run, data, models, dino, clip, out, against, label, cache, device)
