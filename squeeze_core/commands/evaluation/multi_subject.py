"""`squeeze eval multi-subject`: MSIC's measures over 1 to 12 subjects, on a stand-in set."""

from __future__ import annotations

from .dreambench import identity_and_text
from .options import MODELS, Asked, ModelFolder, Models, asked

EXAMPLE = "squeeze eval multi-subject --run runs/several --data dreambooth"


@asked
def multi_subject(
    given: Asked,
    models: Models = MODELS,
    dino: ModelFolder = None,
    clip: ModelFolder = None,
) -> None:
    """DINO, CLIP-I and CLIP-T by number of subjects, on a stand-in for MSIC, which was not released.

    --data is a clone of github.com/google/dreambooth, whose subjects the set is drawn from.
    """
    from ...evaluation.measures.multi_subject import score

    identity_and_text("multi-subject", score, given, models, dino, clip)
