"""Scene plans by an MLLM: several candidates from one reading of the pictures, each checked and ranked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from ..errors import SqueezeError
from ..mllm.backbone import Backbone, Progress
from .adapter import PlannerAdapter
from .checks import repaired
from .plan import MOST_SUBJECTS, ScenePlan
from .prompt import plan_prompt
from .rule import plan_by_rule
from .schema import plan_schema
from .sentence import checked_instruction

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_CANDIDATES = 32
TEMPERATURE = 0.7
Planner = Literal["auto", "mllm", "rule"]
PLANNERS: tuple[Planner, ...] = ("auto", "mllm", "rule")
_WORDS, _WORDS_A_SUBJECT = 300, 70  # tokens for thought and scene, and for a subject's name and caption
_NARROWEST = 512  # no MLLM that can be asked for a plan is narrower; the toy world's has 192


@dataclass(frozen=True)
class Candidate:
    """A plan that can be used. repairs: sentences on what was put right. number: of the candidate, from 1."""

    plan: ScenePlan
    number: int
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """What came of planning. candidates: usable ones, the best first: those that needed the fewest repairs, then in
    the order of their numbers. dropped: why each of the others was.
    """

    candidates: tuple[Candidate, ...]
    dropped: tuple[str, ...] = ()

    @property
    def plans(self) -> tuple[ScenePlan, ...]:
        return tuple(candidate.plan for candidate in self.candidates)

    def report(self) -> str:
        """For people, a line for each candidate."""
        lines = [
            f"plan {rank} (candidate {each.number}): {' '.join(each.repairs) or 'as planned.'}"
            for rank, each in enumerate(self.candidates, start=1)
        ]
        return "\n".join([*lines, *(f"dropped: {why}" for why in self.dropped)])


def plan_scene(
    instruction: str,
    images: Sequence[Image] = (),
    backbone: Backbone | None = None,
    planner: Planner = "auto",
    *,
    candidates: int = 4,
    seed: int = 0,
    temperature: float = TEMPERATURE,
    subjects: int | None = None,
    tiles: int = 1,
    size: str = "",
    adapter: PlannerAdapter | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Plans for an instruction and the pictures of its subjects, the best first.

    planner: "mllm" asks `backbone`; "rule" needs none and makes one plan; "auto" is the rule without an MLLM, and
    with one that is too small to plan (the toy world's). candidates: 1 to 32 of them, at temperature 0 one, from
    seeds `seed`, `seed` + 1, ... subjects: how many there are; None leaves it to the model. tiles: see `Prompt`.
    size: see `plan_by_rule`; with the toy world's MLLM "small" unless given. adapter: a trained planner for this
    MLLM, heard while it plans; with it the toy world's MLLM plans, too.
    progress: called with (tokens, most tokens), and may raise.

    Raises `SqueezeError` for what cannot be planned, and when no candidate can be used.
    """
    text = checked_instruction(instruction)
    check_request(len(images), candidates, temperature, subjects)
    if planner not in PLANNERS:
        raise SqueezeError(f'The planner is "{planner}"; accepted are {", ".join(PLANNERS)}.')
    able = adapter is not None or (backbone is not None and can_plan(backbone))
    if planner == "rule" or (planner == "auto" and (backbone is None or not able)):
        toy = backbone is not None and not can_plan(backbone)
        return Planned((Candidate(plan_by_rule(text, len(images), size or ("small" if toy else "")), 1),))
    if backbone is None:
        raise SqueezeError("To plan by an MLLM, load one. The rule plans without a model.")
    count = candidates if temperature > 0 else 1
    with nullcontext() if adapter is None else adapter.heard(backbone):
        answers = backbone.generate_json(
            plan_prompt(text, images, tiles),
            plan_schema(len(images), subjects),
            seeds=[seed + number for number in range(count)],
            words=_WORDS + _WORDS_A_SUBJECT * (subjects or max(len(images) + 2, 4)),
            temperature=temperature,
            device=device,
            progress=progress,
        )
    return judged(answers, len(images))


def judged(answers: Sequence[str], pictures: int) -> Planned:
    """Answers of a model -> usable plans, ranked. Raises `SqueezeError` when there is none, with the reasons."""
    candidates, dropped = [], []
    for number, answer in enumerate(answers, start=1):
        try:
            plan, repairs = repaired(json.loads(answer), pictures)
        except SqueezeError as error:
            dropped.append(f"candidate {number}: {error}")
        else:
            candidates.append(Candidate(plan, number, tuple(repairs)))
    if not candidates:
        raise SqueezeError(
            f"None of {len(answers)} candidates can be used ({dropped[0]}). Plan again with another seed or more "
            "candidates, use the rule, or write the plan by hand."
        )
    candidates.sort(key=lambda candidate: len(candidate.repairs))
    return Planned(tuple(candidates), tuple(dropped))


def can_plan(backbone: Backbone) -> bool:
    """False for the toy world's MLLM, which describes pictures and can do no more."""
    return backbone.identity.hidden_size >= _NARROWEST


def check_request(
    pictures: int, candidates: int, temperature: float = TEMPERATURE, subjects: int | None = None
) -> None:
    """Raises `SqueezeError` for numbers that `plan_scene` does not take."""
    if pictures > MOST_SUBJECTS:
        raise SqueezeError(
            f"{pictures} pictures are given; a plan has 1 to {MOST_SUBJECTS} subjects. Leave some out."
        )
    if not 1 <= candidates <= MOST_CANDIDATES or not 0 <= temperature <= 10:
        raise SqueezeError(
            f"{candidates} candidates at temperature {temperature} are asked for; give 1 to {MOST_CANDIDATES} "
            "candidates and a temperature from 0 to 10."
        )
    if subjects is not None and not max(1, pictures) <= subjects <= MOST_SUBJECTS:
        raise SqueezeError(
            f"{subjects} subjects are asked for with {pictures} pictures; give one for each picture, at "
            f"least 1 and at most {MOST_SUBJECTS}."
        )
