"""How good a planner is: its plans against plans that are known to be right, such as a data set's.

Subjects are matched by the picture that shows them, those of words alone by their name. What has no match counts as
wrong in every measure, so that a plan gains nothing by leaving a subject out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch

from ..errors import SqueezeError
from .checks import problems
from .files import read_plans
from .places import agrees
from .plan import PlanRelation, PlanSubject, ScenePlan

_ARTICLES = re.compile(r"^(a|an|the)\s+")


@dataclass(frozen=True)
class PlanScore:
    """One plan against the right one; shares in 0 to 1.

    subjects: of the right plan's, that are there. names: of these subjects, called by the right name. relations: of
    the right plan's, that hold on this plan's grid and depths; None where it has none. grid_iou: of the cells of
    each right subject, mean. sound: whether the plan passes all checks by itself.
    """

    subjects: float
    names: float
    relations: float | None
    grid_iou: float
    sound: bool


@dataclass(frozen=True)
class PlannerScore:
    """Means over scenes. parsed: share of the files that are plans; sound: of all candidates in them, that pass.

    The four measures are of the first plan of each file; a file that is none counts 0.
    """

    scenes: int
    parsed: float
    sound: float
    subjects: float
    names: float
    relations: float | None
    grid_iou: float

    def as_dict(self) -> dict:
        return asdict(self)


def score_plan(plan: ScenePlan, truth: ScenePlan) -> PlanScore:
    """See `PlanScore`."""
    match = matched(plan, truth)
    names = [n in match and _same(match[n].name, truth.subject(n).name) for n in truth.numbers]
    held = [_holds(plan, relation, match) for relation in truth.relations]
    return PlanScore(
        subjects=len(match) / len(truth.subjects),
        names=fmean(names),
        relations=fmean(held) if held else None,
        grid_iou=fmean(_iou(plan, truth, number, match) for number in truth.numbers),
        sound=not problems(plan),
    )


def matched(plan: ScenePlan, truth: ScenePlan) -> dict[int, PlanSubject]:
    """Number in the right plan -> the subject of the other; each once."""
    left = list(plan.subjects)
    found: dict[int, PlanSubject] = {}
    for subject in truth.subjects:
        same = [
            each
            for each in left
            if each.picture == subject.picture and (subject.picture is not None or _same(each.name, subject.name))
        ]
        if same:
            found[subject.number] = same[0]
            left.remove(same[0])
    return found


def score_folders(plans: Path, truths: Path) -> tuple[PlannerScore, dict[str, PlanScore | str]]:
    """Files of one name in both folders: NAME.json. Also each one's score, or what was wrong with it.

    Raises `SqueezeError` when a right plan cannot be read, or there is none.
    """
    names = sorted(path.name for path in truths.glob("*.json"))
    if not names:
        raise SqueezeError(f'"{truths}" holds no plan. Give the folder of the right plans, NAME.json each.')
    rows: dict[str, PlanScore | str] = {}
    scores: list[PlanScore] = []
    sound: list[bool] = []
    for name in names:
        truth = read_plans(truths / name)[0]
        try:
            given = read_plans(plans / name)
        except SqueezeError as error:
            rows[name] = str(error)
            scores.append(PlanScore(0, 0, 0 if truth.relations else None, 0, False))
            sound.append(False)
            continue
        rows[name] = score = score_plan(given[0], truth)
        scores.append(score)
        sound += [not problems(each) for each in given]
    parsed = fmean(isinstance(row, PlanScore) for row in rows.values())
    return _mean(scores, parsed, sound), rows


def _mean(scores: Sequence[PlanScore], parsed: float, sound: Sequence[bool]) -> PlannerScore:
    relations = [score.relations for score in scores if score.relations is not None]
    return PlannerScore(
        scenes=len(scores),
        parsed=parsed,
        sound=fmean(sound),
        subjects=fmean(score.subjects for score in scores),
        names=fmean(score.names for score in scores),
        relations=fmean(relations) if relations else None,
        grid_iou=fmean(score.grid_iou for score in scores),
    )


def _same(one: str, other: str) -> bool:
    return _ARTICLES.sub("", one.strip().casefold()) == _ARTICLES.sub("", other.strip().casefold())


def _holds(plan: ScenePlan, relation: PlanRelation, match: dict[int, PlanSubject]) -> bool:
    if relation.subject not in match or relation.object not in match:
        return False
    first, second = match[relation.subject].number, match[relation.object].number
    if first not in plan.boxes or second not in plan.boxes:
        return False
    same = PlanRelation(subject=first, relation=relation.relation, object=second)
    return agrees(plan.grid, plan.depths, same)


def _iou(plan: ScenePlan, truth: ScenePlan, number: int, match: dict[int, PlanSubject]) -> float:
    if number not in match:
        return 0.0
    own = torch.tensor(plan.grid) == match[number].number
    right = torch.tensor(truth.grid) == number
    union = int((own | right).sum())
    return int((own & right).sum()) / union if union else 0.0
