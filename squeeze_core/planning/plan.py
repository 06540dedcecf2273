"""What a scene shall hold: who is in it, where each one stands, and what each one's own caption says.

A `ScenePlan` is written by hand, by the rule (`rule.py`) or by an MLLM (`planner.py`), and is the same in all three
cases. Its fields come in the order in which a model writes them: the thought first, the grid last, so that the one
guides the other (visual chain of thought, MUSIC, arXiv 2604.07422).
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import SqueezeError
from . import grid as cells
from .grid import Box, Grid

MOST_SUBJECTS = 12
# The longest texts, in characters.
THOUGHT, SCENE, NAME, CAPTION = 800, 400, 60, 400
MOST_RELATIONS = 24

# The first six are checked against grid and depth; the others are told to the reader only.
Relation = Literal[
    "left of",
    "right of",
    "above",
    "below",
    "in front of",
    "behind",
    "next to",
    "on",
    "inside",
    "holding",
    "facing",
]
RELATIONS: tuple[Relation, ...] = get_args(Relation)
OPPOSITES: dict[Relation, Relation] = {"right of": "left of", "below": "above", "behind": "in front of"}


def _plain(text: str) -> str:
    for sign in text:
        if unicodedata.category(sign) in ("Cc", "Cs"):
            raise ValueError(f"holds the control character or lone surrogate U+{ord(sign):04X}; remove it")
    return text.strip()


PlainText = Annotated[str, AfterValidator(_plain)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanSubject(_Part):
    """One subject.

    number: 1 to 12, its label in the grid. name: a few words. picture: number of the reference that shows it, None
    for a subject that words alone describe. caption: this subject alone, in the scene, with its place; it becomes
    the subject's own encode, with its own picture only. depth: 1 is the nearest to the viewer.
    """

    number: int = Field(ge=1, le=MOST_SUBJECTS)
    name: PlainText = Field(default="", max_length=NAME)
    picture: int | None = Field(default=None, ge=1)
    caption: PlainText = Field(default="", max_length=CAPTION)
    depth: int = Field(default=1, ge=1, le=MOST_SUBJECTS)

    @model_validator(mode="after")
    def _says_something(self) -> PlanSubject:
        if not self.caption and self.picture is None:
            raise ValueError(f"subject {self.number} has neither words nor a picture; give it a caption")
        return self


class PlanRelation(_Part):
    """`subject` is `relation` `object`: 1 is "left of" 2."""

    subject: int = Field(ge=1, le=MOST_SUBJECTS)
    relation: Relation
    object: int = Field(ge=1, le=MOST_SUBJECTS)

    @property
    def plain(self) -> tuple[int, Relation, int]:
        """The same with "left of", "above" and "in front of" for their opposites."""
        if self.relation in OPPOSITES:
            return self.object, OPPOSITES[self.relation], self.subject
        return self.subject, self.relation, self.object

    def __str__(self) -> str:
        return f"{self.subject} {self.relation} {self.object}"


class ScenePlan(_Part):
    """A planned scene.

    thought: who is who, what each one does, who stands where, who is in front. scene: what all subjects share:
    place, light, style. grid: 8 x 8 subject numbers, 0 for background.

    What is true of a plan always is checked here: numbers unique, every label of the grid and of the relations a
    subject's. Whether it makes a good scene, and fits the pictures given, is the matter of `checks.py`.
    """

    thought: PlainText = Field(default="", max_length=THOUGHT)
    scene: PlainText = Field(default="", max_length=SCENE)
    subjects: tuple[PlanSubject, ...] = Field(min_length=1, max_length=MOST_SUBJECTS)
    relations: tuple[PlanRelation, ...] = Field(default=(), max_length=MOST_RELATIONS)
    grid: Grid

    @field_validator("grid", mode="before")
    @classmethod
    def _eight_by_eight(cls, grid: Any) -> Any:
        """Rows may be lists of numbers or lines of text."""
        if isinstance(grid, str):
            return cells.from_text(grid)
        if isinstance(grid, list | tuple) and grid and all(isinstance(row, str) for row in grid):
            return cells.from_text("\n".join(grid))
        if not isinstance(grid, list | tuple) or not all(isinstance(row, list | tuple) for row in grid):
            raise ValueError("must be 8 rows of 8 subject numbers")
        return cells.checked_size(grid)

    @model_validator(mode="after")
    def _labels_are_known(self) -> ScenePlan:
        known = [subject.number for subject in self.subjects]
        if twice := sorted({number for number in known if known.count(number) > 1}):
            raise ValueError(f"subject {twice[0]} is there twice; give every subject a number of its own")
        numbers = ", ".join(map(str, known))
        if unknown := sorted({label for row in self.grid for label in row} - {cells.BACKGROUND, *known}):
            raise ValueError(f"the grid holds {unknown[0]}, but the subjects are {numbers} and 0 is background")
        for relation in self.relations:
            if {relation.subject, relation.object} - set(known) or relation.subject == relation.object:
                raise ValueError(f'the relation "{relation}" is not one between two of the subjects {numbers}')
        return self

    @classmethod
    def parse(cls, value: Any, what: str = "The plan") -> ScenePlan:
        """A dictionary, as JSON gives it -> a plan. Raises `SqueezeError` with the first thing that is wrong."""
        if not isinstance(value, Mapping):
            raise SqueezeError(f"{what} is not a plan: it must be an object with subjects and a grid.")
        subjects = value.get("subjects")
        if isinstance(subjects, list) and not 1 <= len(subjects) <= MOST_SUBJECTS:
            raise SqueezeError(f"{what} has {len(subjects)} subjects; a plan has 1 to {MOST_SUBJECTS}.")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = " ".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
            said = first["msg"].removeprefix("Value error, ").rstrip(".")
            raise SqueezeError(f"{what} is not right{f' at {where}' if where else ''}: {said}.") from error

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Of the subjects, in their order."""
        return tuple(subject.number for subject in self.subjects)

    @cached_property
    def depths(self) -> dict[int, int]:
        """Subject number -> depth."""
        return {subject.number: subject.depth for subject in self.subjects}

    def subject(self, number: int) -> PlanSubject:
        """Raises `SqueezeError` when there is none of this number."""
        for subject in self.subjects:
            if subject.number == number:
                return subject
        raise SqueezeError(f"The plan has no subject {number}; it has {', '.join(map(str, self.numbers))}.")

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """Subject number -> the smallest box around its cells; a subject without cells has none."""
        return cells.boxes_of_grid(self.grid)

    def owners(self, height: int, width: int) -> torch.Tensor:
        """[height, width] int64 subject numbers, 0 for background, on any grid, such as FLUX's tokens."""
        return cells.owners(self.grid, height, width)

    def masks(self, height: int, width: int) -> torch.Tensor:
        """[subjects, height, width] bool, in the order of `subjects`: each one's region on any grid."""
        own = self.owners(height, width)
        return torch.stack([own == number for number in self.numbers])

    def with_grid(self, grid: Grid | str) -> ScenePlan:
        """The same plan on another grid. Raises `SqueezeError`."""
        return ScenePlan.parse(self.model_dump() | {"grid": grid}, "The changed plan")

    def with_boxes(self, boxes: Mapping[int, Box]) -> ScenePlan:
        """The same plan with boxes for all its subjects. Raises `SqueezeError` when one is missing or hidden."""
        self._check_regions(boxes, "box")
        return self.with_grid(cells.grid_from_boxes({n: boxes[n] for n in self.numbers}, self.depths))

    def with_masks(self, masks: Mapping[int, torch.Tensor]) -> ScenePlan:
        """The same plan with masks [height, width] for all its subjects, 1 at the subject. Raises as above."""
        self._check_regions(masks, "mask")
        found = {number: cells.cells_of_mask(masks[number]) for number in self.numbers}
        if empty := [number for number in self.numbers if not bool(found[number].any())]:
            raise SqueezeError(f"The mask of subject {empty[0]} is black everywhere. Paint the subject white.")
        return self.with_grid(cells.grid_from_cells(found, self.depths))

    def answer(self) -> str:
        """As an MLLM writes it and learns to: one line of JSON without spaces between its parts."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))

    def to_json(self) -> str:
        """For people: a subject, a relation and a row of the grid each on one line."""
        lines = [f' "{name}": {_dumped(getattr(self, name))},' for name in ("thought", "scene")]
        for name in ("subjects", "relations", "grid"):
            rows = [_dumped(row) for row in self.model_dump(mode="json")[name]]
            lines.append(f' "{name}": [' + ",".join(f"\n  {row}" for row in rows) + ("\n ]," if rows else "],"))
        return "{\n" + "\n".join(lines).rstrip(",") + "\n}"

    def _check_regions(self, regions: Mapping[int, Any], what: str) -> None:
        if set(regions) != set(self.numbers):
            asked, given = (", ".join(map(str, sorted(numbers))) or "none" for numbers in (self.numbers, regions))
            raise SqueezeError(
                f"There is a {what} for subject {given}, and the plan has subject {asked}. Give one {what} each."
            )


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
