"""Stage 10: each scene again without its smallest subject, and again, down to two (decimation, section 3.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...planning.places import agrees
from ...planning.plan import PlanRelation, ScenePlan
from .grids import grid_of
from .record import Kept, Outcome, Record
from .work import Work

_MENTION = re.compile(r"\b(picture|subject) (\d+)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.;!?])\s+")


def run(records: Sequence[Record], model: None, work: Work) -> list[Outcome]:
    found: list[Outcome] = []
    for record in records:
        scenes = [record]
        while work.config.decimate and len(scenes[-1].subjects) > 2:
            scenes.append(without_smallest(scenes[-1], record.id, work))
        found.append(Kept(tuple(scenes)))
    return found


def without_smallest(record: Record, first_id: str, work: Work) -> Record:
    """The target stays as it is: who is no longer asked for is part of the scene."""
    smallest = min(range(len(record.subjects)), key=lambda number: record.subjects[number].area)
    left = [number for number in range(1, len(record.subjects) + 1) if number != smallest + 1]
    new = {old: number for number, old in enumerate(left, start=1)}
    subjects = tuple(record.subjects[old - 1] for old in left)
    plan = ScenePlan.parse(record.plan)
    told = [plan.subject(old).model_dump() | {"number": new[old], "picture": new[old]} for old in left]
    depths = {new[old]: plan.depths[old] for old in left}
    grid = grid_of(subjects, work)
    relations = [
        PlanRelation(subject=new[each.subject], relation=each.relation, object=new[each.object])
        for each in plan.relations
        if {each.subject, each.object} <= set(left)
    ]
    names = {new[old]: plan.subject(old).name for old in left}
    changed = {
        "thought": renumbered(plan.thought, new),
        "scene": plan.scene,
        "subjects": told,
        "relations": [each.model_dump() for each in relations if agrees(grid, depths, each)],
        "grid": grid,
    }
    return record.model_copy(
        update={
            "id": f"{first_id}-{len(left)}",
            "names": tuple(subject.name for subject in subjects),
            "subjects": subjects,
            "grid": grid,
            "prompt": with_all(renumbered(record.prompt, new), names),
            "plan": ScenePlan.parse(changed).model_dump(mode="json"),
        }
    )


def renumbered(text: str, new: Mapping[int, int]) -> str:
    """Sentences that name a picture or subject that is gone go with it; the others get their new numbers."""
    kept = [
        sentence
        for sentence in _SENTENCE.split(text)
        if all(int(number) in new for _, number in _MENTION.findall(sentence))
    ]
    return _MENTION.sub(lambda match: f"{match[1]} {new[int(match[2])]}", " ".join(kept))


def with_all(prompt: str, names: Mapping[int, str]) -> str:
    """A sentence more for each picture whose own went with another's."""
    named = {int(number) for _, number in _MENTION.findall(prompt)}
    more = [f"The {name} of picture {number} is there." for number, name in names.items() if number not in named]
    return " ".join([*filter(None, [prompt]), *more])
