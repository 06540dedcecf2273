"""MSIC's measures over 1 to 12 subjects: DINO, CLIP-I and CLIP-T, by the number of subjects.

A picture's identity score is the mean cosine of the whole picture with one reference of each of its subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...vision.backbones import Clip, Dino
from ...vision.batches import Progress
from ..benchmarks.multi_subject import NOTE
from ..cache import Cache
from ..cases import Benchmark
from ..generated_files import Generated
from ..results import Result
from . import dreambench


def score(
    generated: Sequence[Generated],
    benchmark: Benchmark,
    dino: Dino | None,
    clip: Clip | None,
    cache: Cache,
    progress: Progress | None = None,
) -> Result:
    """As `dreambench.score`, with one reference a subject. The report's categories are the numbers of subjects."""
    result = dreambench.score(
        generated, benchmark, dino, clip, cache, progress, references=lambda sample: sample.inputs
    )
    # Each picture counts once, however many subjects it has: else groups of 12 would decide the mean.
    counts = {p.name: len(p.sample.subjects) for p in generated}
    result.pictures = [replace(row, weights={}, details={"subjects": counts[row.file]}) for row in result.pictures]
    result.table = "MSIC"
    if NOTE not in result.notes:
        result.notes.insert(0, NOTE)
    result.settings["identity"] = "mean cosine of the picture with one reference of each subject"
    return result
