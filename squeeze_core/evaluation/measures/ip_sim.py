"""IP-Sim of XVerseBench and LAMICBench (appendix J, Table E): is each subject there, and is it the same?

For every subject asked for, the best three boxes of its name in the generated picture are cut out, padded to
squares and compared with the reference by the cosine of DINO's class tokens; the best of the three counts, times
100. A subject that is not found has 0, as in XVerseBench's own code.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...vision.backbones import Dino
from ...vision.batches import Progress
from ...vision.detector import Detector
from ..cache import Cache
from ..cases import Benchmark
from ..embedding import Files
from ..generated_files import Generated
from ..locating import find
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
    found = find(generated, detector, dino, files, cache, BEST, progress)
    result = Result(benchmark.name, (IP_SIM,), [], table=f"E:{benchmark.name.partition(' ')[0]}")
    result.problems = files.all_problems()
    for picture in generated:
        found_here: dict[str, float] = {}
        for subject in picture.sample.subjects:
            reference, case = subject.references[0], (picture.path, subject.words)
            if reference not in found.references or case not in found.boxes:
                continue  # a file that could not be read, which is in the problems
            squares = found.boxes[case]
            similar = [found.likeness(picture.path, box, reference) for box in squares]
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
