"""DreamBench++ by MLLM judges: how well the subject was kept, 0 to 4 (Table 4; appendix I).

On the subject categories only, and without people, as in the paper (`benchmarks.dreambench_plus`).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import SqueezeError
from ...mllm.backbone import Backbone
from ...vision.batches import Progress
from ...vision.registry import BackboneSpec
from .. import generated_files as naming
from ..cache import Cache
from ..cases import Benchmark, folder_name
from ..embedding import Files
from ..generated_files import Generated
from ..judging import JudgeSettings, judge
from ..pictures import Problem
from ..results import Metric, PictureScore, Result

AVERAGE = "average"
SETTINGS = JudgeSettings()


@dataclass(frozen=True)
class Judge:
    """name: for the report. load: opens the MLLM; called once, and only one judge is held at a time."""

    name: str
    load: Callable[[], Backbone]


def collect(folder: Path, benchmark: Benchmark) -> tuple[list[Generated], list[Problem]]:
    """Like `naming.collect`; reads a method's folder of DreamBench++'s own scripts (tgt_image), too."""
    inner = folder / "tgt_image"
    if inner.is_dir():
        folder, benchmark = inner, _named_as_there(benchmark, inner)
    return naming.collect(folder, benchmark)


def score(
    generated: Sequence[Generated],
    benchmark: Benchmark,
    judges: Sequence[Judge],
    cache: Cache,
    progress: Progress | None = None,
    settings: JudgeSettings = SETTINGS,
) -> Result:
    """Every judge's scores of every picture, and their average.

    A judge without a whole number in its answers leaves the score missing, never zero; a picture has an average
    when all judges scored it. Verdicts are cached by the hashes of both pictures; missing ones are asked again.
    Raises `SqueezeError` without judges, or when two have one name.
    """
    if not judges:
        raise SqueezeError("No judge was given. Give the folder of at least one MLLM (InternVL3 or Qwen2.5-VL).")
    names = [judge.name for judge in judges]
    if len(set(names)) < len(names) or AVERAGE in names:
        raise SqueezeError(f"The judges' names are {', '.join(names)}. Give each a name of its own.")
    problems: list[Problem] = []
    names_of = {picture.path: picture.name for picture in generated}
    names_of |= {path: f"{path.parent.name}/{path.name}" for p in generated for path in p.sample.inputs}
    files = Files(names_of)
    usable = set(files.usable([path for p in generated for path in (p.path, *p.sample.inputs)]))
    pairs = [p for p in generated if {p.path, *p.sample.inputs} <= usable]
    scores: dict[Path, dict[str, float | None]] = {p.path: {} for p in pairs}
    answers: dict[Path, dict[str, list[str]]] = {p.path: {} for p in pairs}
    backbones = []
    for one in judges:
        mllm = one.load()
        spec = _spec(one.name, mllm, settings)
        backbones.append(spec.as_dict())
        for number, pair in enumerate(pairs, start=1):
            value, said = _verdict(mllm, spec, pair, files, settings, cache)
            scores[pair.path][one.name] = value
            if value is None:
                answers[pair.path][one.name] = said
                text = (
                    f'got no score from {one.name} in {len(said)} answers; the last was "{said[-1].strip()[:80]}"'
                )
                problems.append(Problem(pair.name, "unscored", text, scored=False))
            if progress:
                progress(f"{one.name} judges", number, len(pairs))
        del mllm
        gc.collect()  # frames of the first import hang in a cycle and hold the weights while the next are loaded
    rows = [_row(pair, scores[pair.path], answers[pair.path], names) for pair in pairs]
    metrics = tuple(Metric(name, name, True, 3) for name in names)
    result = Result(
        benchmark.name,
        (*metrics, Metric(AVERAGE, "Average", True, 3)),
        rows,
        [*problems, *files.all_problems()],
        backbones,
        {**asdict(settings), "resize": "both pictures squashed to a square, as DreamBench++ does"},
        list(benchmark.notes),
        len(benchmark.samples) * benchmark.seeds,
        "4",
    )
    result.notes += _notes(result, names)
    return result


def _verdict(
    mllm: Backbone, spec: BackboneSpec, pair: Generated, files: Files, settings: JudgeSettings, cache: Cache
) -> tuple[float | None, list[str]]:
    (reference,) = pair.sample.inputs
    key = (files.hash(reference), files.hash(pair.path))
    known = cache.get(spec.key, *key)
    if known is not None:
        return float(known[0]), []
    images = files.read(reference), files.read(pair.path)
    assert images[0] is not None and images[1] is not None  # both are usable
    verdict = judge(mllm, *images, settings)  # type: ignore[arg-type]
    if verdict.score is None:
        return None, list(verdict.answers)
    cache.put(spec.key, *key, value=np.array([verdict.score], dtype=np.int64))
    return float(verdict.score), list(verdict.answers)


def _spec(name: str, mllm: Backbone, settings: JudgeSettings) -> BackboneSpec:
    identity = mllm.identity
    # Hashing 16 GB would take longer than many a run; the final norm tells models apart.
    weights = f"final norm {identity.final_norm_hash}"
    size = f"{identity.model_type}, {identity.layers} layers of {identity.hidden_size}"
    dtype = str(next(mllm.model.parameters()).dtype).removeprefix("torch.")
    asked = {"side": settings.side, "tiles": settings.tiles, "dtype": dtype, "protocol": settings.fingerprint()}
    return BackboneSpec("judge", name, size, "", "", weights, asked)


def _row(
    pair: Generated, scores: dict[str, float | None], answers: dict[str, list[str]], names: Sequence[str]
) -> PictureScore:
    given = [scores[name] for name in names]
    average = None if None in given else sum(value for value in given if value is not None) / len(given)
    details = {"unusable answers": answers} if answers else {}
    return PictureScore.of(pair, {**scores, AVERAGE: average}, details=details)


def _notes(result: Result, names: Sequence[str]) -> list[str]:
    notes = ["Scores of other judges, or of another number of them, do not compare."]
    for name in names:
        missing = len(result.pictures) - result.counted(name)
        if missing:
            notes.append(f"{name} gave no score for {missing} of {len(result.pictures)} pictures: missing, not 0.")
    return notes


def _named_as_there(benchmark: Benchmark, folder: Path) -> Benchmark:
    """The same samples under DreamBench++'s own names of its collections ("live_subject_animal_00_kitten")."""
    there = {
        folder_name(path.name).lower().removeprefix("live_subject_"): path.name
        for path in folder.iterdir()
        if path.is_dir()
    }
    samples = [replace(sample, subject=there.get(sample.subject, sample.subject)) for sample in benchmark.samples]
    return replace(benchmark, samples=samples)
