"""JSON schemas of what LLM and VLM are asked in words, and what is made of their answers.

Answers follow their schema whatever the model, so nothing here fails to parse; nonsense is dropped by the stages'
own checks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...planning.plan import CAPTION, SCENE, THOUGHT, PlanRelation
from ...planning.schema import list_of, object_of, relation_of, text
from .captions import MOST_CHARACTERS
from .roles import Judged, Told

MOST_COUNTED = 9
_INSTRUCTION = 600

CATEGORIES = (
    "Choose {fewest} to {most} of these things that may well be seen together in one photo, each once, large "
    "enough to be recognised: {names}. Answer with JSON."
)
CAPTION_TASK = (
    "Describe one realistic photo, in one or two sentences, that shows exactly one of each of these and nothing "
    "else of note: {names}. Use each of these names as it is, once. Say where the scene is, and where each thing "
    "stands. Answer with JSON."
)
SAME = 'Does this picture show a {name}, whole and easily recognised? Answer "yes" or "no", as JSON.'
COUNT = "How many of this does the picture show: {name}? Answer with a number from 0 to 9, as JSON."
TELL = (
    "This picture shows {count} subjects in numbered boxes: {names}. Imagine a user who has a photo of each of "
    "them and wants exactly this picture. Answer with JSON, in this order:\n"
    '"thought": sentences that call them "subject 1" and so on: who is who, what each one does, where it stands, '
    "and how they belong together.\n"
    '"instruction": what the user writes: short sentences that call them "the {first} of picture 1" and so on, '
    "each named at least once, and the place; no looks, which the photos show.\n"
    '"scene": place, light and style, without the subjects.\n'
    '"captions": for each subject, in order, one sentence that describes it alone, with its place in the picture '
    "and the scene, without a number.\n"
    '"relations": pairs of their numbers with a word between them.\n'
    '"depths": for each subject, in order, 1 for the nearest to the viewer, 2 for the next, and so on.'
)


def categories_schema(candidates: Sequence[str], fewest: int, most: int) -> dict[str, Any]:
    return object_of(names=list_of({"enum": list(candidates)}, fewest, most))


def caption_schema() -> dict[str, Any]:
    return object_of(caption=text(MOST_CHARACTERS))


def same_schema() -> dict[str, Any]:
    return object_of(answer={"enum": ["yes", "no"]})


def count_schema() -> dict[str, Any]:
    return object_of(count={"enum": list(range(MOST_COUNTED + 1))})


def told_schema(subjects: int) -> dict[str, Any]:
    number = {"enum": list(range(1, subjects + 1))}
    return object_of(
        thought=text(THOUGHT),
        instruction=text(_INSTRUCTION),
        scene=text(SCENE),
        captions=list_of(text(CAPTION), subjects, subjects),
        relations=list_of(relation_of(number), 0, 2 * subjects),
        depths=list_of(number, subjects, subjects),
    )


def judged(same: str, count: str) -> Judged:
    return Judged(json.loads(same)["answer"] == "yes", int(json.loads(count)["count"]))


def told(answer: str) -> Told:
    value = json.loads(answer)
    return Told(
        value["instruction"],
        value["thought"],
        value["scene"],
        tuple(value["captions"]),
        tuple(PlanRelation.model_validate(each) for each in value["relations"]),
        tuple(value["depths"]),
    )
