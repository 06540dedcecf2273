"""A plan without a model: the pictures' order and the instruction's words of place make rows and columns."""

from __future__ import annotations

from ..errors import SqueezeError
from .grid import boxes_of_grid
from .places import placed, words_of_place
from .plan import CAPTION, MOST_RELATIONS, MOST_SUBJECTS, NAME, SCENE, THOUGHT, PlanRelation, PlanSubject, ScenePlan
from .sentence import Reading, checked_instruction, read, without_mentions


def plan_by_rule(instruction: str, pictures: int, size: str = "") -> ScenePlan:
    """One subject for each picture, in equal columns unless the instruction says where they stand.

    instruction: "the cat of picture 1 left of the dog of picture 2, on a beach". pictures: how many references.
    size: a word ahead of each name in the captions of several subjects; "small" in the toy world, whose toys
    are that in company.

    A lone subject has the whole picture and the instruction itself as its caption. Raises `SqueezeError` for no
    picture, more than 12, one that is named and not there, and for relations that contradict one another.
    """
    text = checked_instruction(instruction)
    if not 1 <= pictures <= MOST_SUBJECTS:
        raise SqueezeError(
            f"There are {pictures} pictures; the rule plans one subject for each of 1 to {MOST_SUBJECTS}. "
            "Without pictures, plan with an MLLM or write the plan by hand."
        )
    reading = read(text)
    if absent := [number for number in sorted(reading.names) if not 1 <= number <= pictures]:
        there = "there is 1" if pictures == 1 else f"there are {pictures}"
        raise SqueezeError(
            f"The instruction names picture {absent[0]}, but {there}. Give it, or correct the number."
        )
    numbers = list(range(1, pictures + 1))
    relations = reading.relations[:MOST_RELATIONS]
    grid, depths = placed(numbers, relations)
    boxes = boxes_of_grid(grid)
    scene = _scene(reading)
    subjects = []
    for number in numbers:
        name = reading.names.get(number) or "subject"
        place = words_of_place(boxes[number])
        caption = without_mentions(text) if pictures == 1 else _caption(reading, f"{size} {name}".strip(), place)
        subjects.append(
            PlanSubject(
                number=number,
                name=name[:NAME],
                picture=number,
                caption=caption[:CAPTION],
                depth=depths[number],
            )
        )
    return ScenePlan(
        thought=_thought(numbers, relations),
        scene=scene[:SCENE],
        subjects=tuple(subjects),
        relations=relations,
        grid=grid,
    )


def _caption(reading: Reading, name: str, place: str) -> str:
    """ "a photo of the small toy, on the left, on a beach"."""
    start = f"{reading.before} the {name}" if reading.before else f"the {name}"
    return ", ".join(part for part in (start, place, reading.scene) if part)


def _scene(reading: Reading) -> str:
    style = reading.before.removesuffix(" of")
    return ", ".join(part for part in (style, reading.scene) if part)


def _thought(numbers: list[int], relations: tuple[PlanRelation, ...]) -> str:
    parts = "the whole picture for one subject" if len(numbers) == 1 else f"equal parts for {len(numbers)} subjects"
    said = f" The instruction says: {'; '.join(map(str, relations))}." if relations else ""
    return f"By rule, {parts} in the order of their pictures.{said}"[:THOUGHT]
