"""Best of N for `squeeze generate`: which plans, who judges, and what is written."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SqueezeError
from .console import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from ..best_scene import BestScene
    from ..pipeline import Progress, SqueezePipeline
    from ..planning.plan import ScenePlan
    from ..vision.backbones import Clip, Dino


@dataclass(frozen=True)
class BestOf:
    """What is asked for. candidates: plans, 0 for those of a file. pictures: of each plan.

    judges: where DINO and CLIP lie, a folder each.
    """

    candidates: int
    pictures: int
    rule: str
    judges: Path

    @property
    def is_asked(self) -> bool:
        return self.candidates > 1 or self.pictures > 1

    def check(self, *, planned: bool, count: int, toy: bool) -> None:
        """Raises `SqueezeError` for what cannot be chosen from, before any model is loaded.

        planned: whether there is a plan or will be one.
        """
        from ..best_scene import check_count
        from ..planning.best_of import RULES

        if not self.is_asked:
            return
        if not planned:
            raise SqueezeError(
                "--best-of looks where a plan has each subject. Add --plan FILE, or --plan-candidates 1 to plan."
            )
        if count > 1:
            raise SqueezeError("--count makes several pictures, --best-of keeps one. Give one of them.")
        if self.rule not in RULES:
            raise SqueezeError(f'The rule is "{self.rule}"; accepted are {", ".join(RULES)}.')
        if toy and self.rule == "clip_t":
            raise SqueezeError("CLIP knows no toys: in the toy world, choose by smallest_identity.")
        check_count(max(1, self.candidates), self.pictures)
        if not toy:
            self._folders()

    def models(self, toy: bool, device: str) -> tuple[Dino | None, Clip | None]:
        """Loaded judges. In the toy world an untrained network of DINO's architecture looks."""
        from ..vision.backbones import load_clip, load_dino

        if toy:
            from ..evaluation.measures.toyworld import UntrainedViT

            return UntrainedViT(), None  # type: ignore[return-value]  # encodes as Dino does
        folders = self._folders()
        dino = load_dino(folders["dino"], device) if "dino" in folders else None
        return dino, load_clip(folders["clip"], device) if "clip" in folders else None

    def _folders(self) -> dict[str, Path]:
        """The judges that are there; the one that the rule needs must be."""
        from ..vision.registry import locate

        needed, other = ("clip", "dino") if self.rule == "clip_t" else ("dino", "clip")
        found: dict = {needed: locate(needed, self.judges)}  # type: ignore[arg-type]
        with suppress(SqueezeError):  # it would only say more
            found[other] = locate(other, self.judges)  # type: ignore[arg-type]
        return found


def planned(
    pipeline: SqueezePipeline, prompt: str, images: Sequence[Image], candidates: int, seed: int, progress: Progress
) -> tuple[ScenePlan, ...]:
    """Plans for a prompt by the pipeline's MLLM, or by rule where that is too small; what came of them is said."""
    from ..planning.planner import plan_scene

    with pipeline.at_work(pipeline.mllm.model):
        found = plan_scene(
            prompt,
            images,
            pipeline.mllm,
            candidates=candidates,
            seed=seed,
            device=pipeline.device,
            progress=lambda done, total: progress("plan", done, total),
        )
    say(found.report())
    return found.plans


def write_best(best: BestScene, out: Path, notes: dict[str, str]) -> list[Path]:
    """The best picture, and beside it a sheet of all with their plans and scores."""
    from ..picture_files import write_picture
    from ..planning.best_of import sheet

    say(best.choice.report())
    number = best.choice.best // len(set(best.seeds)) + 1
    say(f"The best: plan {number}, seed {best.seed}.")
    every = sheet(best.pictures, best.plans, best.choice)
    return [
        write_picture(best.picture, out, notes),
        write_picture(every, out.with_stem(f"{out.stem}_sheet").with_suffix(".png")),
    ]


def out_plan(out: Path) -> Path:
    """Where the plan of a picture lies that planned for itself."""
    return out.with_stem(f"{out.stem}_plan").with_suffix(".json")
