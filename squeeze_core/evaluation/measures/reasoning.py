"""Text following where the prompt means something else than its reference's main subject: CLIP-T (Table 3)."""

from __future__ import annotations

from collections.abc import Sequence

from ...vision.backbones import Clip
from ...vision.batches import Progress
from ..cache import Cache
from ..cases import Benchmark
from ..generated_files import Generated
from ..results import Result, weighted_mean
from . import dreambench

NAME = "reasoning"
# What to generate with, in the order of the report: Figure 5's results come from MLLM signals alone.
MLLM_ONLY, GATED = "MLLM only", "MLLM + VAE"
MLLM_ONLY_TAUS = (0.0, 0.0)  # of the gate: references never join


def score(
    generated: Sequence[Generated],
    benchmark: Benchmark,
    clip: Clip,
    cache: Cache,
    progress: Progress | None = None,
    label: str = MLLM_ONLY,
) -> Result:
    """CLIP-T of one run; its label says whether the references' latents took part.

    Besides the mean over all samples, the settings give those with one reference and with two.
    """
    result = dreambench.score(generated, benchmark, None, clip, cache, progress, references=lambda sample: [])
    result.metrics, result.table, result.label = (dreambench.CLIP_T,), "3", label
    kind_of = {(p.sample.subject, p.sample.prompt, p.seed): p.sample.category for p in generated}
    by_kind = {
        kind: [row for row in result.pictures if kind_of[row.key] == kind] for kind in sorted(set(kind_of.values()))
    }
    result.settings = {
        "text": result.settings["text"],
        "run": label,
        "by references": {
            kind: {
                "pictures": len(rows),
                "clip_t": weighted_mean((row.score(dreambench.CLIP_T.key), 1.0) for row in rows),
            }
            for kind, rows in by_kind.items()
        },
    }
    return result
