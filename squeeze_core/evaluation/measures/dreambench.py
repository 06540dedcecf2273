"""DINO-I, CLIP-I and CLIP-T (section 4.2, Table 1), as DreamBooth introduced them.

DINO-I and CLIP-I: the cosine of a generated and a reference picture's embeddings, mean over all pairs of
generated and reference pictures of the same subject. CLIP-T: the cosine of the generated picture's and the
prompt's CLIP embeddings (CLIPScore would be 2.5 times that).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ...vision.backbones import Clip, Dino, cosines
from ...vision.batches import Progress
from ..cache import Cache
from ..cases import Benchmark, Sample
from ..embedding import Files, embed, embed_texts
from ..generated_files import Generated
from ..pictures import Problem
from ..results import Metric, PictureScore, Result

DINO_I = Metric("dino_i", "DINO-I", higher_is_better=True)
CLIP_I = Metric("clip_i", "CLIP-I", higher_is_better=True)
CLIP_T = Metric("clip_t", "CLIP-T", higher_is_better=True)

References = Callable[[Sample], Sequence[Path]]


def all_references(sample: Sample) -> list[Path]:
    return [path for subject in sample.subjects for path in subject.references]


def score(
    generated: Sequence[Generated],
    benchmark: Benchmark,
    dino: Dino | None,
    clip: Clip | None,
    cache: Cache,
    progress: Progress | None = None,
    references: References = all_references,
) -> Result:
    """Score pictures. dino, clip: None leaves its metrics out.

    references: which pictures of a sample take part; DreamBench takes all of its subject. Pictures and
    references that cannot be read are reported, and the rest is scored.
    """
    metrics = ((DINO_I,) if dino else ()) + ((CLIP_I, CLIP_T) if clip else ())
    files = Files(names={picture.path: picture.name for picture in generated}, cache=cache)
    wanted = {p.sample: list(references(p.sample)) for p in generated}
    paths = [p.path for p in generated]
    shown = [path for group in wanted.values() for path in group]
    # A reference lies in a folder of its own, so that a bare name would not tell which it is.
    files.names |= {path: f"{path.parent.name}/{path.name}" for path in shown}  # type: ignore[operator]
    by_dino = embed(dino, paths + shown, files, cache, progress) if dino else {}
    by_clip = embed(clip, paths + shown, files, cache, progress) if clip else {}
    texts = embed_texts(clip, [p.sample.text for p in generated], cache, progress) if clip else {}
    rows: list[PictureScore] = []
    for picture in generated:
        scores: dict[str, float | None] = {}
        weights: dict[str, float] = {}
        for metric, vectors in ((DINO_I, by_dino), (CLIP_I, by_clip)):
            used = [vectors[path] for path in wanted[picture.sample] if path in vectors]
            if picture.path in vectors and used:
                pairs = cosines(vectors[picture.path][None], torch.stack(used))
                scores[metric.key], weights[metric.key] = float(pairs.mean()), float(len(used))
        if picture.path in by_clip:
            pair = cosines(by_clip[picture.path][None], texts[picture.sample.text][None])
            scores[CLIP_T.key] = float(pair)
        if scores:
            rows.append(PictureScore.of(picture, scores, wanted[picture.sample], weights))
    result = Result(benchmark.name, metrics, rows, table="1" if benchmark.name == "DreamBench" else None)
    result.problems = files.all_problems()
    result.asked = len(benchmark.samples) * benchmark.seeds
    result.backbones = [backbone.spec.as_dict() for backbone in (dino, clip) if backbone]
    result.settings = {
        "identity": "mean cosine over all pairs of generated and reference pictures of a subject",
        "text": "raw cosine with the prompt, without CLIPScore's factor 2.5",
    }
    result.notes += benchmark.notes
    if clip:
        result.problems += _too_long(clip, generated)
    return result


def _too_long(clip: Clip, generated: Sequence[Generated]) -> list[Problem]:
    found: dict[str, Problem] = {}
    for picture in generated:
        text = picture.sample.text
        if text not in found and clip.is_too_long(text):
            name = f"{picture.sample.subject}, prompt {picture.sample.prompt}"
            note = f"is longer than the {clip.max_tokens} tokens that CLIP reads; CLIP-T is of its beginning"
            found[text] = Problem(name, "unscored", note, scored=True)
    return list(found.values())
