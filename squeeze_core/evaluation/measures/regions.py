"""Several subjects, each in its own region: is it there, is it itself, or another, or one with another?

A mean over the whole picture cannot see a collapse: two copies of one subject score as well as both. Here the boxes
of each subject's name are cut out and compared with the references of *all* subjects by DINO.

- missing: the detector finds nothing of its name that is large enough
- swapped: of its boxes the one most like it is more like another subject's reference
- fused: that box and another subject's cover each other, so one thing stands for two
- kept: none of these, and, with a threshold, at least so like its own reference

`lost`, the share that is not kept, is a Subject Collapse Rate in the sense of arXiv 2603.26078; that paper's own
threshold and crops we have not seen, so its numbers do not compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ...vision.backbones import Dino
from ...vision.batches import Progress
from ...vision.detector import Detection, Detector, overlap
from ..cache import Cache
from ..cases import Benchmark
from ..embedding import Files
from ..generated_files import Generated
from ..locating import find
from ..results import Metric, PictureScore, Result

Outcome = Literal["kept", "swapped", "fused", "missing"]
BEST = 3  # boxes of a name that are looked at
COVER = 0.5  # intersection over union from which two boxes are one thing
IDENTITY = Metric("identity", "Identity in its region", higher_is_better=True)
METRICS = (
    IDENTITY,
    Metric("found", "Found", higher_is_better=True),
    Metric("kept", "Kept", higher_is_better=True),
    Metric("swapped", "Swapped", higher_is_better=False),
    Metric("fused", "Fused", higher_is_better=False),
    Metric("lost", "Lost", higher_is_better=False),
)


def outcomes(
    boxes: Mapping[str, Sequence[Detection]],
    similar: Mapping[str, Sequence[Mapping[str, float]]],
    threshold: float | None = None,
) -> dict[str, tuple[Outcome, float]]:
    """What became of each subject of a picture, and how like its reference it is, 0 where it is missing.

    boxes: of each subject's name. similar: of each of these boxes, its likeness to every subject's reference.
    """
    best = {}
    for name, found in boxes.items():
        if found:
            own = [each[name] for each in similar[name]]
            best[name] = own.index(max(own))
    result: dict[str, tuple[Outcome, float]] = {}
    for name in boxes:
        if name not in best:
            result[name] = "missing", 0.0
            continue
        box, likeness = boxes[name][best[name]], similar[name][best[name]]
        others = [boxes[other][best[other]] for other in best if other != name]
        outcome: Outcome = "kept"
        if max(likeness, key=lambda each: likeness[each]) != name:
            outcome = "swapped"
        elif any(overlap(box, other) >= COVER for other in others):
            outcome = "fused"
        elif threshold is not None and likeness[name] < threshold:
            outcome = "swapped"
        result[name] = outcome, likeness[name]
    return result


def score(
    generated: Sequence[Generated],
    benchmark: Benchmark,
    detector: Detector,
    dino: Dino,
    cache: Cache,
    progress: Progress | None = None,
    threshold: float | None = None,
) -> Result:
    """Score pictures; each counts as often as it has subjects.

    threshold: cosine below which a subject that was found is not itself; None compares subjects only.
    """
    files = Files(names={p.path: p.name for p in generated}, cache=cache)
    found = find(generated, detector, dino, files, cache, BEST, progress)
    result = Result(benchmark.name, METRICS, [])
    result.problems = files.all_problems()
    for picture in generated:
        path, subjects = picture.path, [s for s in picture.sample.subjects if s.references[0] in found.references]
        if not subjects or any((path, s.words) not in found.boxes for s in subjects):
            continue  # a file that could not be read, which is in the problems
        boxes = {s.name: found.boxes[path, s.words] for s in subjects}
        similar = {
            name: [{s.name: found.likeness(path, box, s.references[0]) for s in subjects} for box in each]
            for name, each in boxes.items()
        }
        result.pictures.append(_row(picture, outcomes(boxes, similar, threshold)))
    result.asked = len(benchmark.samples) * benchmark.seeds
    result.backbones = [detector.spec.as_dict(), dino.spec.as_dict()]
    result.settings = {
        "boxes": f"the best {BEST} of a name, padded to white squares",
        "fused_from_iou": COVER,
        "threshold": threshold,
    }
    result.notes += benchmark.notes
    return result


def _row(picture: Generated, found: Mapping[str, tuple[Outcome, float]]) -> PictureScore:
    count = len(found)
    shares = {
        outcome: sum(each == outcome for each, _ in found.values()) / count
        for outcome in ("kept", "swapped", "fused", "missing")
    }
    scores = {
        "identity": sum(likeness for _, likeness in found.values()) / count,
        "found": 1 - shares["missing"],
        **{name: shares[name] for name in ("kept", "swapped", "fused")},
        "lost": 1 - shares["kept"],
    }
    details = {"subjects": {name: {"outcome": what, "identity": like} for name, (what, like) in found.items()}}
    return PictureScore.of(picture, scores, weights={name: float(count) for name in scores}, details=details)
