"""Several toys in one picture: what a plan, a layout and best of N keep, by the exact measures.

For each of the prompt's toys its own region of the truth is looked at: which toy stands there, and how many of its
attributes are those of its own reference. Results are kept one file a row and seed; a row that is there is not
measured again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...evaluation.measures.toyworld import UntrainedViT
from ...files import whole
from ...gate import Gate
from ...planning.best_of import pick_best
from ...planning.grid import Box, grid_from_boxes
from ...planning.plan import PlanRelation, PlanSubject, ScenePlan
from ...planning.rule import plan_by_rule
from ...scene import generate_scene, placed_subjects
from .. import measures, scenes
from ..examples import SEED_OF_TEST_PAIRS
from ..figures import Identity, Pose
from ..measures import identity_share
from ..reading import Found, read, read_within
from ..scenes import Pair, WorldOptions
from .table import BOTH, GATED, GENERATION

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...pipeline import SqueezePipeline

Planned = Literal["none", "hand", "rule"]
TOYS = WorldOptions(max_turn=0, carrying=0, styles=scenes.PHOTOS, split="test")
CELLS = 8  # a side of a plan's grid
BEST_OF, BEST_TOYS = 4, (2, 3)
RULES = ("one picture", "smallest identity", "prompt", "the best there is")


@dataclass(frozen=True)
class Row:
    """toys: 2 to 4. against: the prompt's words put the two the other way round than the plan does."""

    toys: int
    planned: Planned
    against: bool = False
    gate: Gate = GATED

    @property
    def key(self) -> str:
        gate = "" if self.gate == GATED else "-both"
        return f"{self.toys}{'-against' if self.against else ''}-{self.planned}{gate}"


@dataclass(frozen=True)
class Kept:
    """Of one picture. identity: mean over toys of the share of right attributes in the toy's own region, 0 where
    none stands there. kept: share of regions whose toy has at least three of four right and is nearest to its own.
    swapped: whose toy is nearer to another of the prompt's. fused: the rest with a toy in it. missing: none there.
    prompt: share of what was told that is so.
    """

    identity: float
    kept: float
    swapped: float
    fused: float
    missing: float
    prompt: float


def rows() -> list[Row]:
    found = [Row(2, planned) for planned in ("none", "hand", "rule")]
    found += [Row(2, planned, against=True) for planned in ("none", "hand")]
    found += [Row(toys, planned) for toys in (3, 4) for planned in ("none", "hand", "rule")]
    found += [Row(2, planned, gate=BOTH) for planned in ("none", "hand")]
    return found


def kept(picture: np.ndarray, pair: Pair) -> Kept:
    """Measure a picture of several toys. picture: [128, 128, 3] uint8."""
    reading = read(picture)
    wanted = [subject.identity for subject in pair.target.subjects]
    inside = read_within(picture, places(pair, scenes.SIDE))
    shares = [identity_share(found, own) for found, own in zip(inside, wanted)]
    counts = {"kept": 0, "swapped": 0, "fused": 0, "missing": 0}
    for found, own, share in zip(inside, wanted, shares):
        counts[_fate(found, own, share, wanted)] += 1
    order = measures.matched(reading.subjects, wanted)
    told = list(measures.follows(reading, pair.told, order).values())
    of = len(wanted)
    return Kept(
        sum(shares) / of, **{name: count / of for name, count in counts.items()}, prompt=sum(told) / len(told)
    )


def _fate(found: Found | None, own: Identity, share: float, wanted: Sequence[Identity]) -> str:
    if found is None:
        return "missing"
    others = max(identity_share(found, other) for other in wanted if other != own)
    if others > share:
        return "swapped"
    return "kept" if share >= 0.75 else "fused"


def places(pair: Pair, side: int) -> np.ndarray:
    """[side, side] to which of the target's toys each point is nearest, from 0."""
    axis = (np.arange(side) + 0.5) / side
    poses = [subject.pose for subject in pair.target.subjects]
    away = np.stack([(axis[None] - pose.x) ** 2 + (axis[:, None] - pose.y) ** 2 for pose in poses])
    return away.argmin(0)


def plan_by_hand(pair: Pair) -> ScenePlan:
    """Each cell for the toy that the truth has nearest to it, and what each one's caption says of it alone."""
    subjects = tuple(
        PlanSubject(
            number=number,
            name="small toy",
            picture=number,
            caption=f"a photo of the small toy, {measures.place(subject.pose)}, {pair.told.background}",
        )
        for number, subject in enumerate(pair.target.subjects, start=1)
    )
    relations: tuple[PlanRelation, ...] = ()
    if pair.told.relation is not None:
        relations = (PlanRelation(subject=1, relation=pair.told.relation, object=2),)  # type: ignore[arg-type]
    grid = tuple(tuple(int(cell) + 1 for cell in row) for row in places(pair, CELLS))
    return ScenePlan(subjects=subjects, relations=relations, grid=grid)


def _against(pair: Pair) -> Pair:
    """The same places, and a prompt that says the opposite."""
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert pair.told.relation is not None
    return replace(pair, prompt=pair.prompt.replace(pair.told.relation, opposite[pair.told.relation]))


def pairs_of(row: Row, count: int) -> list[Pair]:
    found = [scenes.several(SEED_OF_TEST_PAIRS, number, row.toys, TOYS) for number in range(count)]
    return [_against(pair) for pair in found] if row.against else found


def picture(pipeline: SqueezePipeline, row: Row, pair: Pair, seed: int) -> Image:
    """Made as the row says."""
    from PIL import Image

    references = [Image.fromarray(scenes.render(scene)) for scene in pair.references]
    settings = replace(GENERATION, gate=row.gate, seed=seed)
    if row.planned == "none":
        return pipeline.generate(pair.prompt, references, settings).images[0]
    plan = plan_by_hand(pair) if row.planned == "hand" else plan_by_rule(pair.prompt, len(references), "small")
    return generate_scene(pipeline, placed_subjects(plan, references), settings).images[0]


def fill(
    out: Path,
    pipeline: SqueezePipeline,
    wanted: Iterable[Row],
    *,
    pairs: int,
    seeds: Sequence[int],
    progress: Callable[[str, int, int], None] = lambda row, done, total: None,
) -> None:
    """Measure the rows that OUT lacks; one picture a pair and seed."""
    for row in wanted:
        examples = pairs_of(row, pairs)
        for seed in seeds:
            path = _result(out, row.key, seed, pairs)
            if path.is_file():
                continue
            scores = []
            for number, pair in enumerate(examples):
                made = picture(pipeline, row, pair, seed * 100_003 + number)
                scores.append(kept(np.asarray(made), pair))
                progress(row.key, number + 1, pairs)
            _write(path, _means(scores))


def fill_best_of(
    out: Path,
    pipeline: SqueezePipeline,
    toys: int,
    *,
    pairs: int,
    seeds: Sequence[int],
    progress: Callable[[str, int, int], None] = lambda row, done, total: None,
) -> None:
    """Of `BEST_OF` pictures by a plan by hand, the one that each rule keeps.

    "smallest identity": each toy's region against its reference, by the vectors of an untrained ViT, as DINO would.
    "prompt": the exact share of what was told, in place of CLIP's text score, which knows no toys; the first of
    equals. "the best there is": what the truth would choose.
    """
    row, judge = Row(toys, "hand"), UntrainedViT()
    examples = pairs_of(row, pairs)
    for seed in seeds:
        if all(_result(out, f"best-{toys}-{rule}", seed, pairs).is_file() for rule in RULES):
            continue
        chosen: dict[str, list[Kept]] = {rule: [] for rule in RULES}
        for number, pair in enumerate(examples):
            made = [
                picture(pipeline, row, pair, (seed * 1009 + take) * 100_003 + number) for take in range(BEST_OF)
            ]
            scores = [kept(np.asarray(each), pair) for each in made]
            smallest = _smallest(judge, made, pair)
            picks = {
                "one picture": 0,
                "smallest identity": int(np.argmax(smallest)),
                "prompt": int(np.argmax([score.prompt for score in scores])),
                "the best there is": int(np.argmax([score.identity for score in scores])),
            }
            for rule, pick in picks.items():
                chosen[rule].append(scores[pick])
            progress(f"best of {BEST_OF}, {toys} toys", number + 1, pairs)
        for rule, scores in chosen.items():
            _write(_result(out, f"best-{toys}-{rule}", seed, pairs), _means(scores))


def _smallest(judge: UntrainedViT, made: Sequence[Image], pair: Pair) -> list[float]:
    """What Pick Best's default rule decides by: the plan is of boxes, references show a toy alone."""
    from PIL import Image

    boxes = {}
    for number, subject in enumerate(pair.target.subjects, start=1):
        left, top, right, bottom = _square(subject.pose)
        boxes[number] = Box(left, top, right - left, bottom - top)
    plan = plan_by_hand(pair).with_grid(grid_from_boxes(boxes, dict.fromkeys(boxes, 1)))
    own = [_cut(Image.fromarray(scenes.render(scene)), scene.subjects[0].pose) for scene in pair.references]
    found = pick_best(made, [plan], own, dino=judge)  # type: ignore[arg-type]  # encodes as Dino does
    return [score.smallest for score in found.scores]


def _cut(picture: Image, pose: Pose) -> Image:
    return picture.crop(tuple(round(edge * picture.width) for edge in _square(pose)))  # type: ignore[arg-type]


def _square(pose: Pose) -> tuple[float, float, float, float]:
    """Around a toy, inside the picture: left, top, right, bottom from 0 to 1."""
    half = pose.size / 2
    return max(0.0, pose.x - half), max(0.0, pose.y - half), min(1.0, pose.x + half), min(1.0, pose.y + half)


def markdown(out: Path, wanted: Iterable[Row], *, pairs: int, seeds: Sequence[int]) -> str:
    """Both tables of what is measured: mean ± standard deviation over seeds."""
    names = ("identity", "kept", "swapped", "fused", "missing", "prompt")
    head = "| toys | plan | " + " | ".join(names) + " | seeds |\n" + "|---|---|" + "---|" * (len(names) + 1) + "\n"
    lines = []
    for row in wanted:
        cells = _cells(out, row.key, names, pairs, seeds)
        if cells:
            what = (
                f"{row.toys}{', words against it' if row.against else ''}{', no gate' if row.gate != GATED else ''}"
            )
            lines.append(f"| {what} | {row.planned} | {cells}\n")
    best: list[str] = []
    for toys in BEST_TOYS:
        for rule in RULES:
            cells = _cells(out, f"best-{toys}-{rule}", names, pairs, seeds)
            if cells:
                best.append(f"| {toys} | {rule} | {cells}\n")
    return head + "".join(lines) + "\n" + head.replace("| plan |", f"| best of {BEST_OF} by |") + "".join(best)


def _cells(out: Path, key: str, names: Sequence[str], pairs: int, seeds: Sequence[int]) -> str:
    found = [path for seed in seeds if (path := _result(out, key, seed, pairs)).is_file()]
    if not found:
        return ""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in found]
    cells = []
    for name in names:
        values = [result[name] for result in results]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.3f}{spread}")
    return " | ".join(cells) + f" | {len(found)} |"


def _means(scores: Sequence[Kept]) -> str:
    return json.dumps({name: statistics.fmean(vars(score)[name] for score in scores) for name in vars(scores[0])})


def _result(out: Path, key: str, seed: int, pairs: int) -> Path:
    return out / f"{key.replace(' ', '_')}-{pairs}pairs-seed{seed}.json"


def _write(path: Path, text: str) -> None:
    with whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
