"""MUSIC's f2: a picture is trained with its plan as `scene.generate_scene` will use one.

Each subject is read by itself, with its own caption and picture, and the contexts are joined; words and references
of each may be bound to its place in attention; the plan's own text may stand in front for everybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..attention.regions import Region
from ..attention.rules import AttentionRules, ReferenceRule
from ..data.examples import Example
from ..planning.plan import ScenePlan
from ..scene import placed_subjects

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Planned:
    """texts: what the MLLM reads in turn, each with its pictures; owners: the subject of each, 0 for everybody.

    pictures: the references in the order in which FLUX has them, subject of each in `shown`. places: of every
    subject; empty without a layout.
    """

    texts: tuple[tuple[str, tuple[Image, ...]], ...]
    owners: tuple[int, ...]
    pictures: tuple[Image, ...]
    shown: tuple[int, ...]
    places: tuple[tuple[int, Region], ...]

    def rules(self, tokens: Sequence[int], references: bool) -> AttentionRules | None:
        """Who sees whom. tokens: of each context, none when the MLLM's are dropped. None without a layout."""
        if not self.places:
            return None
        words = tuple(zip(self.owners, tokens)) if tokens else ()
        heard = tuple(ReferenceRule(owner) for owner in self.shown) if references else ()
        return AttentionRules(heard, words, self.places)


def planned(
    example: Example, *, separate_encodes: bool, layout: bool, plan_text: bool, pictures: bool = True
) -> Planned | None:
    """What an example's plan makes of it; None for an example without one.

    separate_encodes: else the instruction is read once, with all pictures. plan_text: thought and plan, as a
    planner writes them, are words of everybody's. pictures: whether the MLLM sees them. Raises `SqueezeError` for a
    plan that is not sound.
    """
    if example.plan is None:
        return None
    plan = ScenePlan.parse(example.plan, f"The plan of {example.name}")
    subjects = placed_subjects(plan, example.references)
    texts: list[tuple[str, tuple[Image, ...]]] = []
    owners = []
    if not separate_encodes:
        said = f"{example.prompt}\n{plan.answer()}" if plan_text else example.prompt
        texts.append((said, example.references if pictures else ()))
        owners.append(0)
    else:
        if plan_text:
            texts.append((f"{plan.scene}\n{plan.answer()}".strip(), ()))
            owners.append(0)
        for number, subject in enumerate(subjects, start=1):
            own = (subject.image,) if pictures and subject.image is not None else ()
            texts.append((subject.caption, own))
            owners.append(number)
    seen = [(number, one.image) for number, one in enumerate(subjects, start=1) if one.image is not None]
    places = tuple((number, one.place) for number, one in enumerate(subjects, start=1)) if layout else ()
    return Planned(
        tuple(texts), tuple(owners), tuple(image for _, image in seen), tuple(number for number, _ in seen), places
    )
