"""IP-Sim of XVerseBench and LAMICBench (appendix J, Table E): is each subject there, and is it the same?

For every subject asked for, the best three boxes of its name in the generated picture are cut out, padded to
squares and compared with the reference by the cosine of DINO's class tokens; the best of the three counts, times
100. A subject that is not found has 0, as in XVerseBench's own code.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...vision.backbones import Dino, cosines
from ...vision.batches import Progress
from ...vision.detector import Detector, large_enough
from ..cache import Cache
from ..cases import Benchmark
from ..embedding import Files, embed
from ..generated_files import Generated
from ..locating import Crop, detect, of_crops
from ..pictures import Problem
from ..results import Metric, PictureScore, Result

IP_SIM = Metric("ip_sim", "IP-Sim", higher_is_better=True, digits=2)
BEST = 3


def score(
    generated: Sequence[Generated],
    benchmark: Benchmark,
    detector: Detector,
    dino: Dino,
    cache: Cache,
    progress: Progress | None = None,
) -> Result:
    """Score pictures; each counts as often as it has subjects."""
    files = Files(names={p.path: p.name for p in generated}, cache=cache)
    shown = [path for p in generated for path in p.sample.inputs]
    files.names |= {path: f"{path.parent.name}/{path.name}" for path in shown}  # type: ignore[operator]
    references = embed(dino, shown, files, cache, progress)
    wanted = [(p.path, subject.words) for p in generated for subject in p.sample.subjects]
    boxes = detect(detector, wanted, files, cache, progress)
    crops = {}
    for (path, words), found in boxes.items():
        read = files.read(path)
        assert read is not None  # it has boxes
        crops[path, words] = [Crop(path, box) for box in large_enough(found, read.width)[:BEST]]
    vectors = of_crops(
        dino.spec.key,
        dino.encode,
        [crop for group in crops.values() for crop in group],
        files,
        cache,
        "dino reads crops",
        progress,
    )
    result = Result(benchmark.name, (IP_SIM,), [], table=f"E:{benchmark.name.partition(' ')[0]}")
    result.problems = files.all_problems()
    for picture in generated:
        found_here: dict[str, float] = {}
        for subject in picture.sample.subjects:
            reference = references.get(subject.references[0])
            if reference is None or (picture.path, subject.words) not in crops:
                continue  # a file that could not be read, which is in the problems
            squares = crops[picture.path, subject.words]
            similar = [float(cosines(reference[None], vectors[crop][None])) for crop in squares]
            found_here[subject.name] = 100 * max(similar, default=0.0)
            if not squares:
                text = f'shows no "{subject.words}" to the detector; its IP-Sim is 0'
                result.problems.append(Problem(picture.name, "unscored", text, scored=True))
        if found_here:
            result.pictures.append(_row(picture, found_here))
    result.asked = len(benchmark.samples) * benchmark.seeds
    result.backbones = [detector.spec.as_dict(), dino.spec.as_dict()]
    result.settings = {
        "crops": f"best of the top {BEST} boxes, padded to white squares",
        "smallest": "width / 20 squared in area",
        "not_found": 0,
    }
    result.notes += benchmark.notes
    result.notes.append(
        "Boxes come from the detector named below; XVerseBench's own code uses Florence-2 with SAM 2, so that "
        "small differences to published scores are to be expected."
    )
    return result


def _row(picture: Generated, found: dict[str, float]) -> PictureScore:
    scores, weights = {IP_SIM.key: sum(found.values()) / len(found)}, {IP_SIM.key: float(len(found))}
    return PictureScore.of(picture, scores, weights=weights, details={"subjects": found})
