"""N plans x M seeds -> pictures, and the one that keeps its subjects best.

The pipeline keeps what it has encoded: subjects are read once for all pictures of a plan, and once for all plans
that say the same of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import SqueezeError
from .generation import GenerationSettings
from .planning.best_of import BestOf, Rule, pick_best
from .planning.plan import ScenePlan
from .scene import generate_scene, placed_subjects, scene_prompts

if TYPE_CHECKING:
    from PIL.Image import Image

    from .pipeline import Progress, SqueezePipeline
    from .vision.backbones import Clip, Dino

MOST_PICTURES = 64


@dataclass(frozen=True)
class BestScene:
    """pictures: all of them, those of a plan side by side. plans, seeds: of each. choice: scores, and the best."""

    pictures: tuple[Image, ...]
    plans: tuple[ScenePlan, ...]
    seeds: tuple[int, ...]
    choice: BestOf

    @property
    def picture(self) -> Image:
        return self.pictures[self.choice.best]

    @property
    def plan(self) -> ScenePlan:
        return self.plans[self.choice.best]

    @property
    def seed(self) -> int:
        return self.seeds[self.choice.best]


def check_count(plans: int, pictures: int) -> None:
    """Raises `SqueezeError` for more pictures than one choice is made from. pictures: of each plan."""
    if pictures < 1 or plans < 1 or plans * pictures > MOST_PICTURES:
        raise SqueezeError(
            f"{plans} plans of {pictures} pictures are {plans * pictures}; choose from 1 to {MOST_PICTURES}."
        )


def generate_best(
    pipeline: SqueezePipeline,
    plans: Sequence[ScenePlan],
    images: Sequence[Image],
    settings: GenerationSettings,
    pictures: int,
    *,
    prompt: str = "",
    rule: Rule = "smallest_identity",
    dino: Dino | None = None,
    clip: Clip | None = None,
    masks: Sequence[Image | None] | None = None,
    until: float = 0.0,
    progress: Progress | None = None,
) -> BestScene:
    """Pictures of every plan, and the best of all by the rule.

    pictures: of each plan, from settings.seed and the seeds after it. images, masks: in the order of the plans'
    picture numbers. prompt: for CLIP's text score. The rest as of `generate_scene` and `pick_best`, whose errors
    it raises.
    """
    check_count(len(plans), pictures)
    made: list[Image] = []
    seeds = range(settings.seed, settings.seed + pictures)
    placed = [placed_subjects(plan, images, masks) for plan in plans]
    for number, subjects in enumerate(placed):
        pipeline.encode_ahead((scene_prompts(pipeline, one, settings) for one in placed[number:]), progress)
        for seed in seeds:
            _tell(progress, "picture", len(made) + 1, len(plans) * pictures)
            one = replace(settings, seed=seed, batch=1)
            made += generate_scene(pipeline, subjects, one, until=until, progress=progress).images
    every = tuple(plan for plan in plans for _ in seeds)
    choice = pick_best(made, every, images, prompt, rule=rule, dino=dino, clip=clip, progress=progress)
    return BestScene(tuple(made), every, tuple(seeds) * len(plans), choice)


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
