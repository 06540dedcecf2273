"""Stage 9: a VLM writes the instruction, and the thought behind the plan: who is who, where and why."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import SqueezeError
from ...planning.grid import Grid
from ...planning.places import agrees
from ...planning.plan import PlanRelation, PlanSubject, ScenePlan
from ...planning.sentence import pictures_named, without_mentions
from .record import Dropped, Kept, Outcome, Record
from .roles import Judge, Told
from .work import Work


def run(records: Sequence[Record], judge: Judge, work: Work) -> list[Outcome]:
    return [checked(record, judge.tell(record, work.picture(record.target))) for record in records]


def checked(record: Record, told: Told) -> Outcome:
    """The record with its plan, without relations that the grid contradicts."""
    numbers = range(1, len(record.subjects) + 1)
    if set(pictures_named(told.instruction)) != set(numbers):
        return Dropped("an instruction that leaves a picture out, or names one that is not there")
    if len(told.captions) != len(numbers) or len(told.depths) != len(numbers):
        return Dropped("captions or depths that are not one for each subject")
    assert record.grid is not None
    depths = dict(zip(numbers, told.depths))
    right = tuple(each for each in told.relations if _holds(record.grid, depths, each))
    try:
        plan = ScenePlan(
            thought=told.thought,
            scene=told.scene,
            subjects=tuple(
                PlanSubject(
                    number=number,
                    name=subject.name,
                    picture=number,
                    caption=without_mentions(caption),
                    depth=depths[number],
                )
                for number, subject, caption in zip(numbers, record.subjects, told.captions)
            ),
            relations=tuple(dict.fromkeys(right)),
            grid=record.grid,
        )
    except (ValueError, SqueezeError):
        return Dropped("texts that no plan may have")
    lost = tuple(f"a relation that is not so: {each}" for each in told.relations if each not in right)
    changes = {"prompt": told.instruction.strip(), "plan": plan.model_dump(mode="json")}
    return Kept((record.model_copy(update=changes),), lost)


def _holds(grid: Grid, depths: dict[int, int], relation: PlanRelation) -> bool:
    known = {relation.subject, relation.object} <= set(depths) and relation.subject != relation.object
    return known and agrees(grid, depths, relation)
