"""`squeeze eval stress`: appendix K.1's two kinds of hard prompts."""

from __future__ import annotations

from .dreambench import identity_and_text
from .options import MODELS, Asked, ModelFolder, Models, asked

EXAMPLE = "squeeze eval stress --run runs/stress --data dreambooth"


@asked
def stress(
    given: Asked,
    models: Models = MODELS,
    dino: ModelFolder = None,
    clip: ModelFolder = None,
) -> None:
    """Several instances of the subject, and long attribute lists: DINO-I, CLIP-I, CLIP-T by kind.

    The paper prints its own prompts in a figure only; these were written for this set.
    """
    from ...evaluation.measures.dreambench import score

    identity_and_text("stress", score, given, models, dino, clip)
