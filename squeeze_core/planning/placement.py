"""Whether each subject stands where its plan puts it: pictures with plans, by the detector's boxes.

- inclusion: share of a subject's box that lies in its region of the plan
- fill: share of the region that its box covers

LAMIC (arXiv 2508.00477) has an inclusion ratio and a fill ratio; this is how we understand the words. Its formulas
we have not seen, so its numbers do not compare. A subject that is not found has 0 in both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ..errors import SqueezeError
from ..files import write_text
from ..picture_files import read_picture
from ..vision.detector import Detection, Detector, large_enough
from .files import read_plans
from .grid import CELLS
from .plan import ScenePlan

if TYPE_CHECKING:
    from ..vision.batches import Progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Placed:
    """Of one subject. found: whether there is a box of its name that is large enough."""

    name: str
    found: bool
    inclusion: float
    fill: float


def placed(plan: ScenePlan, boxes: Mapping[int, Sequence[Detection]], width: int, height: int) -> list[Placed]:
    """Of a picture of that size. boxes: of each subject number's name; of several the one that lies best in its
    region counts."""
    return [_best(plan, number, boxes.get(number, ()), width, height) for number in plan.numbers]


def _best(plan: ScenePlan, number: int, boxes: Sequence[Detection], width: int, height: int) -> Placed:
    name = plan.subject(number).name
    shares = [_shares(plan, number, box, width, height) for box in boxes]
    if not shares:
        return Placed(name, False, 0.0, 0.0)
    inclusion, fill = max(shares)
    return Placed(name, True, inclusion, fill)


def _shares(plan: ScenePlan, number: int, box: Detection, width: int, height: int) -> tuple[float, float]:
    """Exact areas, cell by cell."""
    both = region = 0.0
    for row, line in enumerate(plan.grid):
        for column, label in enumerate(line):
            if label != number:
                continue
            left, top = column * width / CELLS, row * height / CELLS
            right, bottom = left + width / CELLS, top + height / CELLS
            across = max(0.0, min(right, box.right) - max(left, box.left))
            down = max(0.0, min(bottom, box.bottom) - max(top, box.top))
            both += across * down
            region += (right - left) * (bottom - top)
    return both / (box.width * box.height), both / region if region else 0.0


def score(
    pictures: Path, plans: Path, detector: Detector, out: Path, progress: Progress = lambda what, done, total: None
) -> dict[str, float]:
    """Pictures NAME.png (or .jpg, .webp) with plans NAME.json; means, and OUT/placement.json with every subject.

    Raises `SqueezeError` where no picture has a plan, or a plan's subject has no name to look for.
    """
    found = (
        sorted(path for path in pictures.iterdir() if path.suffix.lower() in SUFFIXES) if pictures.is_dir() else []
    )
    pairs = [(path, plans / f"{path.stem}.json") for path in found if (plans / f"{path.stem}.json").is_file()]
    if not pairs:
        raise SqueezeError(
            f'None of the {len(found)} pictures in "{pictures}" has a plan in "{plans}". Plans are NAME.json for '
            "NAME.png, as squeeze generate --plan-candidates writes them."
        )
    rows = {}
    for number, (path, plan_path) in enumerate(pairs, start=1):
        plan, picture = read_plans(plan_path)[0], read_picture(path)
        nameless = [subject.number for subject in plan.subjects if not subject.name]
        if nameless:
            raise SqueezeError(f'Subject {nameless[0]} of "{plan_path}" has no name to look for. Give it one.')
        boxes = {
            each.number: large_enough(detector.detect(picture, each.name), picture.width) for each in plan.subjects
        }
        rows[path.name] = placed(plan, boxes, picture.width, picture.height)
        progress("pictures", number, len(pairs))
    every = [each for row in rows.values() for each in row]
    means = {
        "pictures": float(len(rows)),
        "found": fmean(each.found for each in every),
        "inclusion": fmean(each.inclusion for each in every),
        "fill": fmean(each.fill for each in every),
    }
    told = {
        "means": means,
        "detector": detector.spec.as_dict(),
        "pictures": {name: [asdict(each) for each in row] for name, row in rows.items()},
    }
    write_text(out / "placement.json", json.dumps(told, indent=1) + "\n")
    return means
