"""How much the subject's pose differs from its reference's (section 4.2 (2), Table 2): is it copied and pasted?

A detector finds the subject in both pictures, Orient Anything reads azimuth and polar angle of both squares.
Recall@k is the share of pictures in which both angles differ by less than k degrees; the Average "Recall" Rate is
its mean over 5, 10, 15 and 20. High angles and a low rate mean new poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...vision.batches import Progress
from ...vision.detector import Detection, Detector
from ...vision.orientation import OrientAnything, Orientation
from ..cache import Cache
from ..cases import Benchmark
from ..embedding import Files
from ..generated_files import Generated
from ..locating import Crop, detect, of_crops
from ..pictures import Problem
from ..results import Metric, PictureScore, Result, weighted_mean

if TYPE_CHECKING:
    from PIL.Image import Image

LIMITS = (5, 10, 15, 20)
FILL = 0.85  # of the square, as Orient Anything's own preparation leaves around the subject
UNSURE = 0.5  # below this confidence the model sees no front

AZIMUTH = Metric("azimuth", "Azimuth", True, 1, "degrees")
POLAR = Metric("polar", "Polar", True, 1, "degrees")
RECALL = Metric("recall", 'Average "Recall" Rate', False, 3)
RECALLS = tuple(Metric(f"recall@{k}", f"Recall@{k}", False, 3) for k in LIMITS)


def azimuth_difference(a: float, b: float) -> float:
    """0 to 180 degrees, the short way round: 359 and 1 differ by 2."""
    away = abs(a - b) % 360
    return min(away, 360 - away)


def polar_difference(a: float, b: float) -> float:
    """0 to 180 degrees; polar angles do not wrap."""
    return abs(a - b)


def compare(reference: Orientation, made: Orientation) -> dict[str, float | None]:
    """All scores of one picture against its reference."""
    azimuth = azimuth_difference(reference.azimuth, made.azimuth)
    polar = polar_difference(reference.polar, made.polar)
    recalls = {f"recall@{k}": float(azimuth < k and polar < k) for k in LIMITS}
    return {"azimuth": azimuth, "polar": polar, "recall": sum(recalls.values()) / len(LIMITS), **recalls}


def score(
    generated: Sequence[Generated],
    benchmark: Benchmark,
    detector: Detector,
    orientation: OrientAnything,
    cache: Cache,
    progress: Progress | None = None,
    min_confidence: float = 0.0,
) -> Result:
    """Compare each picture with the reference that went into it: the first of its subject.

    min_confidence: pictures in which either orientation is less sure than this are reported and not scored. The
    paper names no such limit, so that none is the default; the means of the sure pictures alone (0.5) are in the
    settings of every report. Where the detector finds nothing, the whole picture is read, and reported.
    """
    reference_of = {p: p.sample.inputs[0] for p in generated}
    files = Files(names={p.path: p.name for p in generated}, cache=cache)
    files.names |= {r: f"{r.parent.name}/{r.name}" for r in reference_of.values()}  # type: ignore[operator]
    wanted = [(path, p.sample.subjects[0].words) for p in generated for path in (reference_of[p], p.path)]
    boxes = detect(detector, wanted, files, cache, progress)
    crops = {case: Crop(case[0], found[0] if found else None, FILL) for case, found in boxes.items()}
    angles = estimate(orientation, list(crops.values()), files, cache, progress)
    result = Result(benchmark.name, (AZIMUTH, POLAR, RECALL, *RECALLS), [], table="2")
    result.problems = files.all_problems() + _not_found(boxes, files)
    for picture in generated:
        words = picture.sample.subjects[0].words
        pair = [crops.get((path, words)) for path in (reference_of[picture], picture.path)]
        if None in pair:
            continue  # one of the files could not be read, which is in the problems
        reference, made = (angles[crop] for crop in pair if crop is not None)
        confidence = min(reference.confidence, made.confidence)
        if confidence < min_confidence:
            text = f"has a confidence of {confidence:.2f}, below {min_confidence:g}"
            result.problems.append(Problem(picture.name, "unscored", text, scored=False))
            continue
        result.pictures.append(_row(picture, reference, made, confidence, pair[1], reference_of[picture]))
    _describe(result, benchmark, detector, orientation, min_confidence)
    return result


def estimate(
    orientation: OrientAnything,
    crops: Sequence[Crop],
    files: Files,
    cache: Cache,
    progress: Progress | None = None,
) -> dict[Crop, Orientation]:
    """The orientation of every crop."""

    def compute(squares: Sequence[Image]) -> torch.Tensor:
        found = orientation.estimate(squares)
        return torch.tensor([(o.azimuth, o.polar, o.rotation, o.confidence) for o in found], dtype=torch.float64)

    what = "Orient Anything reads poses"
    rows = of_crops(orientation.spec.key, compute, crops, files, cache, what, progress)
    return {crop: Orientation(*row.tolist()) for crop, row in rows.items()}


def _row(
    picture: Generated,
    reference: Orientation,
    made: Orientation,
    confidence: float,
    crop: Crop | None,
    path: Path,
) -> PictureScore:
    details = {
        "reference": [reference.azimuth, reference.polar],
        "generated": [made.azimuth, made.polar],
        "confidence": confidence,
        "detected": crop is not None and crop.box is not None,
    }
    return PictureScore.of(picture, compare(reference, made), [path], details=details)


def _not_found(boxes: dict[tuple[Path, str], list[Detection]], files: Files) -> list[Problem]:
    return [
        Problem(files.names[path], "unscored", f'shows no "{words}" to the detector; read whole', scored=True)
        for (path, words), found in boxes.items()
        if not found
    ]


def _describe(
    result: Result,
    benchmark: Benchmark,
    detector: Detector,
    orientation: OrientAnything,
    min_confidence: float,
) -> None:
    sure = [row for row in result.pictures if row.details["confidence"] >= UNSURE]
    result.asked = len(benchmark.samples) * benchmark.seeds
    result.backbones = [detector.spec.as_dict(), orientation.spec.as_dict()]
    result.settings = {
        "reference": "the one that went into generation, the first of the subject",
        "crop": f"best box in a white square, {FILL:g} of its side",
        "min_confidence": min_confidence,
        f"confidence at least {UNSURE:g}": {
            "pictures": len(sure),
            **{
                metric.key: weighted_mean((row.score(metric.key), 1.0) for row in sure)
                for metric in (AZIMUTH, POLAR, RECALL)
            },
        },
    }
    result.notes += benchmark.notes
    unsure = len(result.pictures) - len(sure)
    if unsure:
        result.notes.append(
            f"In {unsure} of {len(result.pictures)} pictures the model is not sure that the subject has a front "
            f"(confidence below {UNSURE:g}); their angles are little more than chance."
        )
