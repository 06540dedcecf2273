"""Best of N: which of several pictures of one scene keeps its subjects best.

The paper keeps the picture of the best CLIP text score, which rises also while identities merge. By default the
subject that is kept worst decides: each one's region of the plan is cut out, put on a white square and compared
with its reference, as IP-Sim does (`evaluation/measures/ip_sim.py`), here without a detector: the plan says where.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import SqueezeError
from ..evaluation.scoring import vectors
from ..vision.backbones import Clip, Dino, cosines
from ..vision.batches import Progress
from ..vision.detector import Detection, cut
from .checks import check
from .plan import ScenePlan

if TYPE_CHECKING:
    from PIL.Image import Image

Rule = Literal["smallest_identity", "clip_t"]
RULES: tuple[Rule, ...] = get_args(Rule)
_STEPS = 100  # smallest identities that are equal in steps of 0.01 leave the choice to the text score


@dataclass(frozen=True)
class SceneScore:
    """Of one picture.

    identities: subject number -> cosine of its region with its own reference; subjects with words only are left
    out. kept: of these, how many regions are nearer to their own reference than to any other subject's. text:
    CLIP's cosine with the prompt, NaN where it was not measured.
    """

    identities: Mapping[int, float]
    kept: int
    text: float

    @property
    def smallest(self) -> float:
        """Identity of the subject that is kept worst; NaN without any."""
        return min(self.identities.values(), default=math.nan)


@dataclass(frozen=True)
class BestOf:
    """Scores in the order of the pictures, and what the rule says. best: index of the picture to keep."""

    scores: tuple[SceneScore, ...]
    best: int
    rule: Rule
    identity_by: str

    def report(self) -> str:
        """A line a picture, the best marked."""
        lines = ["picture  smallest  kept    text  identities"]
        for i, score in enumerate(self.scores):
            own = "  ".join(f"{number}: {value:.3f}" for number, value in score.identities.items())
            kept = f"{score.kept}/{len(score.identities)}"
            mark = "  best" if i == self.best else ""
            lines.append(f"{i:>7}  {_cell(score.smallest):>8}  {kept:>4}  {_cell(score.text):>6}  {own}{mark}")
        by = f"identities by {self.identity_by}" if self.identity_by else "no identities"
        return "\n".join([*lines, "", f"best: by {self.rule}; {by}."])


def pick_best(
    pictures: Sequence[Image],
    plans: Sequence[ScenePlan],
    references: Sequence[Image],
    prompt: str = "",
    *,
    rule: Rule = "smallest_identity",
    dino: Dino | None = None,
    clip: Clip | None = None,
    progress: Progress | None = None,
) -> BestOf:
    """Score pictures of one scene, and choose.

    pictures: RGB of any size. plans: one for all pictures, or one each. references: "picture 1" of the plans is
    references[0]. dino measures identities, clip where there is no dino; clip measures the text when there is a
    prompt. Raises `SqueezeError` when the rule cannot be followed, or the plans are not of these pictures.
    """
    check_choice(
        len(pictures), plans, len(references), prompt, rule, identity=bool(dino or clip), text=clip is not None
    )
    each = list(plans) * (len(pictures) // len(plans))
    eyes = dino or clip
    texts = [math.nan] * len(pictures)
    if clip is not None and prompt.strip():
        texts = cosines(vectors(clip, pictures, progress), clip.encode_texts([prompt]))[:, 0].tolist()
    found: list[tuple[dict[int, float], int]] = [({}, 0)] * len(pictures)
    if eyes is not None and references:
        found = _identities(eyes, pictures, each, references, progress)
    scores = tuple(SceneScore(own, kept, text) for (own, kept), text in zip(found, texts))
    identity_by = eyes.spec.name if eyes is not None and references else ""
    return BestOf(scores, _best(scores, rule), rule, identity_by)


def check_choice(
    pictures: int,
    plans: Sequence[ScenePlan],
    references: int,
    prompt: str,
    rule: str,
    *,
    identity: bool,
    text: bool,
) -> None:
    """Raises `SqueezeError` for what `pick_best` cannot do, before any model is loaded.

    identity, text: whether there is a model that measures it.
    """
    if rule not in RULES:
        raise SqueezeError(f'The rule is "{rule}"; accepted are {", ".join(RULES)}.')
    if not pictures:
        raise SqueezeError("There is no picture to choose from.")
    if len(plans) not in (1, pictures):
        raise SqueezeError(f"There are {len(plans)} plans for {pictures} pictures. Give one, or one for each.")
    for plan in plans:
        check(plan, references)
    if rule == "clip_t" and not (text and prompt.strip()):
        raise SqueezeError("The rule clip_t needs CLIP and a prompt. Give both, or choose smallest_identity.")
    pictured = all(any(subject.picture is not None for subject in plan.subjects) for plan in plans)
    if rule == "smallest_identity" and not (identity and pictured):
        raise SqueezeError(
            "The rule smallest_identity needs DINO or CLIP, and a reference picture for some subject of each plan. "
            "Give them, or choose clip_t."
        )


def sheet(pictures: Sequence[Image], plans: Sequence[ScenePlan], found: BestOf) -> Image:
    """All pictures with their scores, each beside the plan it was made by; the best is marked."""
    from ..contact_sheet import contact_sheet
    from .picture import draw_plan

    each = list(plans) * (len(pictures) // len(plans))
    cells = []
    for i, (picture, plan, score) in enumerate(zip(pictures, each, found.scores)):
        said = (
            f"smallest {_cell(score.smallest)}, kept {score.kept}/{len(score.identities)}\ntext {_cell(score.text)}"
        )
        name = f"picture {i}{', the best' if i == found.best else ''}"
        cells += [("plan", draw_plan(plan, *picture.size)), (f"{name}\n{said}", picture)]
    rows = [cells[first : first + 4] for first in range(0, len(cells), 4)]
    return contact_sheet(rows, f"Best of {len(pictures)}, by {found.rule}")


def _identities(
    eyes: Dino | Clip,
    pictures: Sequence[Image],
    plans: Sequence[ScenePlan],
    references: Sequence[Image],
    progress: Progress | None,
) -> list[tuple[dict[int, float], int]]:
    """For each picture: subject -> cosine with its reference, and how many are nearest to their own."""
    crops, where = [], []
    for i, (picture, plan) in enumerate(zip(pictures, plans)):
        for subject in plan.subjects:
            if subject.picture is not None:
                crops.append(_cut(picture, plan, subject.number))
                where.append((i, subject.number, subject.picture - 1))
    table = cosines(vectors(eyes, crops, progress), vectors(eyes, references, progress))
    found: list[tuple[dict[int, float], int]] = [({}, 0) for _ in pictures]
    for row, (i, number, reference) in zip(table, where):
        own, kept = found[i]
        own[number] = float(row[reference])
        found[i] = (own, kept + (int(row.argmax()) == reference))
    return found


def _cut(picture: Image, plan: ScenePlan, number: int) -> Image:
    """The box around a subject's cells, on a square."""
    box = plan.boxes[number]
    width, height = picture.size
    return cut(picture, Detection(box.left * width, box.top * height, box.right * width, box.bottom * height, 1.0))


def _best(scores: Sequence[SceneScore], rule: Rule) -> int:
    """The first of equally good ones."""

    def worth(score: SceneScore) -> tuple[float, ...]:
        text = -math.inf if math.isnan(score.text) else score.text
        if rule == "clip_t":
            return (text,)
        # Without a text score, the finest difference decides.
        return math.floor(score.smallest * _STEPS), text, score.smallest

    return max(range(len(scores)), key=lambda i: worth(scores[i]))


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
