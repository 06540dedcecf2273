"""What a plan must keep before it is used, and what is put right by itself where only one way is plain.

Put right, each with a sentence that says so:
- labels of the grid that are no subject's become background; relations with a number that is no subject's, with
  themselves, or said twice, go
- picture numbers in captions go: each caption is read with its own picture alone
- depths that "in front of" contradicts are set anew from these relations
- a grid on which a subject has no cell, or that relations contradict, is drawn anew from them (`places.py`)

Not put right: a picture that no subject shows, a picture that is not there, relations that contradict one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SqueezeError
from .grid import BACKGROUND
from .places import agrees, placed
from .plan import ScenePlan
from .sentence import mentions_picture, without_mentions


def problems(plan: ScenePlan, pictures: int | None = None) -> list[str]:
    """Sentences on what is wrong with a plan; none for a sound one.

    pictures: how many references there are; None when they are not known, and not checked.
    """
    found = [
        f"Subject {number} has no cell in the grid, so it would not be drawn."
        for number in plan.numbers
        if number not in plan.boxes
    ]
    if pictures is not None:
        found += picture_problems(plan, pictures)
    seen = [r for r in plan.relations if {r.subject, r.object} <= set(plan.boxes)]
    found += [f'The relation "{r}" is not so in the plan.' for r in seen if not agrees(plan.grid, plan.depths, r)]
    return found


def picture_problems(plan: ScenePlan, pictures: int) -> list[str]:
    """Sentences on pictures that nobody shows, and on those that are not there."""
    named = {subject.picture for subject in plan.subjects} - {None}
    there = "there is none" if pictures == 0 else f"there are {pictures}"
    missing = [
        f"Subject {subject.number} is of picture {subject.picture}, but {there}."
        for subject in plan.subjects
        if subject.picture is not None and subject.picture > pictures
    ]
    unnamed = [number for number in range(1, pictures + 1) if number not in named]
    return missing + [f"Picture {number} is no subject's." for number in unnamed]


def check(plan: ScenePlan, pictures: int | None = None) -> ScenePlan:
    """The same plan. Raises `SqueezeError` with the first of `problems`."""
    found = problems(plan, pictures)
    if found:
        raise SqueezeError(f"{found[0]} Correct the plan, or plan again.")
    return plan


def repaired(answer: Mapping[str, Any], pictures: int | None = None) -> tuple[ScenePlan, list[str]]:
    """A plan as a model wrote it (parsed JSON) -> a sound one, and what was put right.

    Raises `SqueezeError`, with what is wrong, when it is not plain how to put it right.
    """
    value, said = dict(answer), []
    known = [subject["number"] for subject in value["subjects"]]
    if any(label not in (BACKGROUND, *known) for row in value["grid"] for label in row):
        value["grid"] = [[label if label in known else BACKGROUND for label in row] for row in value["grid"]]
        said.append("Labels of the grid that are no subject's became background.")
    kept = _sound_relations(value["relations"], known)
    if len(kept) < len(value["relations"]):
        said.append(
            f"{len(value['relations']) - len(kept)} relations between no two subjects, or said twice, went."
        )
        value["relations"] = kept
    if any(mentions_picture(subject["caption"]) for subject in value["subjects"]):
        value["subjects"] = [
            {**subject, "caption": without_mentions(subject["caption"]) or subject["name"]}
            for subject in value["subjects"]
        ]
        said.append("Picture numbers went from the captions, which are read with one picture each.")
    plan, replaced = _placed_anew(ScenePlan.parse(value, "The model's plan"))
    return check(plan, pictures), said + replaced


def _placed_anew(plan: ScenePlan) -> tuple[ScenePlan, list[str]]:
    """Depths and grid, where they contradict the relations."""
    said = []
    front = [relation for relation in plan.relations if relation.plain[1] == "in front of"]
    if not all(agrees(plan.grid, plan.depths, relation) for relation in front):
        _, depths = placed(plan.numbers, plan.relations)
        subjects = [{**s.model_dump(), "depth": depths[s.number]} for s in plan.subjects]
        plan = ScenePlan.parse(plan.model_dump() | {"subjects": subjects})
        said.append('Depths were set anew from the relations "in front of" and "behind".')
    if problems(plan):
        plan = plan.with_grid(placed(plan.numbers, plan.relations)[0])
        said.append("The grid was drawn anew from the relations: it left a subject out, or contradicted them.")
    return plan, said


def _sound_relations(relations: list[dict[str, Any]], known: list[int]) -> list[dict[str, Any]]:
    """Those between two different subjects, each once."""
    kept: list[dict[str, Any]] = []
    for relation in relations:
        pair = {relation["subject"], relation["object"]}
        if len(pair) == 2 and pair <= set(known) and relation not in kept:
            kept.append(relation)
    return kept
