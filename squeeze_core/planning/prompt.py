"""What an MLLM is asked when it plans; the same words for one that was trained to plan and one that was not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..mllm.backbone import Prompt
from .grid import CELLS
from .plan import RELATIONS

if TYPE_CHECKING:
    from PIL.Image import Image

# Written into a trained planner's record. Change it whenever the words or the schema change.
PLAN_TEMPLATE: Final = "scene-plan-v1"

_TASK = (
    "You plan one new picture before it is drawn. Pictures of its subjects are attached, numbered in order from 1. "
    "The instruction says what the new picture shows. Answer with JSON alone, in this order:\n"
    '"thought": think first. Say who is who and what each one looks like in its picture, what each one does, who '
    "stands where, and who is in front.\n"
    '"scene": what all of them share: place, light, style. No subject.\n'
    '"subjects": one for each attached picture, in order; after them others that the instruction names without a '
    'picture. "name" is two or three words. "picture" is the number of its picture, or null. "caption" is one '
    "sentence that describes this subject alone, as if nobody else were there, with its place in the picture and "
    'the scene; it never mentions a picture number. "depth" is 1 for the nearest to the viewer, 2 for the next, '
    "and so on.\n"
    f'"relations": pairs of subject numbers with one of these words between them: {", ".join(RELATIONS)}.\n'
    f'"grid": the new picture as {CELLS} rows, from top to bottom, of {CELLS} cells, from left to right. Each cell '
    "holds the number of the subject that covers it, or 0 for background. Every subject covers several "
    "neighbouring cells, as large as it will be drawn, and the cells agree with the relations."
)


def plan_prompt(instruction: str, images: Sequence[Image] = (), tiles: int = 1) -> Prompt:
    """instruction: as `sentence.checked_instruction` gives it. images: "picture 1" is images[0]."""
    shown = f"There are {len(images)} pictures." if len(images) != 1 else "There is 1 picture."
    return Prompt(f"{shown} Instruction: {instruction}", tuple(images), _TASK, tiles)
