"""Text following where the prompt means something else than its reference's main subject: CLIP-T (Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..backbones import Clip, cosines
from ..batches import Progress
from ..cache import Cache
from ..embedding import Files, embed, embed_texts
from ..naming import collect
from ..results import Metric, PictureScore, Result
from ..samples import Benchmark

NAME = "reasoning"
CLIP_T = Metric("clip_t", "CLIP-T", True)
# What to generate with, in the order of the report: Figure 5's results come from MLLM signals alone.
MLLM_ONLY, GATED = "MLLM only", "MLLM + VAE"
MLLM_ONLY_TAUS = (0.0, 0.0)  # of the gate: references never join


def score(
    runs: Mapping[str, Path],
    benchmark: Benchmark,
    clip: Clip,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """A result for each run. runs: label -> folder of pictures, as in {MLLM_ONLY: ..., GATED: ...}.

    The cosine of CLIP's picture and prompt vectors, raw (not times 2.5). Besides the mean over all samples, the
    notes give those with one reference and with two. Raises `SqueezeError`.
    """
    kept = cache or Cache()
    return {label: _score(folder, benchmark, clip, label, kept, progress) for label, folder in runs.items()}


def _score(
    folder: Path, benchmark: Benchmark, clip: Clip, label: str, cache: Cache, progress: Progress | None
) -> Result:
    generated, problems = collect(folder, benchmark)
    files = Files({picture.path: picture.name for picture in generated})
    vectors = embed(clip, [picture.path for picture in generated], files, cache, progress)
    texts = embed_texts(clip, [picture.sample.text for picture in generated], cache, progress)
    rows: list[PictureScore] = []
    kinds: dict[str, list[float]] = {}
    for picture in generated:
        if picture.path not in vectors:
            continue
        sample = picture.sample
        value = float(cosines(vectors[picture.path][None], texts[sample.text][None]))
        kinds.setdefault(sample.category, []).append(value)
        rows.append(
            PictureScore(
                picture.name,
                sample.subject,
                sample.prompt,
                picture.seed,
                {CLIP_T.key: value},
                text=sample.text,
                references=tuple(path.name for path in sample.inputs),
            )
        )
    notes = list(benchmark.notes)
    for kind, values in sorted(kinds.items()):
        notes.append(
            f"CLIP-T with {kind} reference{'s' if kind == 'two' else ''}: {sum(values) / len(values):.4f}."
        )
    cut = sum(clip.is_too_long(sample.text) for sample in benchmark.samples)
    if cut:
        notes.append(f"CLIP reads only the beginning of {cut} prompts.")
    return Result(
        NAME,
        (CLIP_T,),
        rows,
        [*benchmark.problems, *problems, *files.all_problems()],
        [clip.spec.as_dict()],
        {"run": label},
        notes,
        len(benchmark.samples) * benchmark.seeds,
        "reasoning",
        label,
    )
