"""What stage 0 brings on the toy world: an adapter before and after stage 1, by where stage 1 began.

All begin with one least-squares fit a seed. Stage 1 is as long for each in steps, and for the fit alone also as
long in time as both stages together. Everything is kept in OUT: one command goes on where it stopped.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import adapter as adapter_file
from ...files import write_text
from ...pipeline import SqueezePipeline
from ...training.build import squeeze_task
from ...training.config import TrainConfig
from ...training.config_files import load_config
from ...training.distillation.build import distill_task
from ...training.distillation.config import DistillConfig
from ...training.export import export
from ...training.loop import Trainer
from .. import language, measures, training, world
from ..examples import unseen_pairs
from .run import CONFIGS
from .table import GENERATION, MLLM_ONLY, Row, measured

STEPS_0, STEPS_1 = 200, 150
CAPTIONS, PAIRS = 32, 40
TEXTS = "data=[{kind: toyworld, options: {says: caption}}]"


@dataclass(frozen=True)
class Beginning:
    """name: of the row. key: of its files. changes: to configs/toy_stage0.yaml; None for the fit alone.
    longer: whether stage 1 takes the time of both stages with described pictures."""

    name: str
    key: str
    changes: tuple[str, ...] | None
    longer: bool = False


FIT = Beginning("the fit alone", "fit", None)
DESCRIBED = Beginning("fit, then texts and described pictures", "described", ())
BEGINNINGS = (
    FIT,
    Beginning("fit, then texts", "texts", (TEXTS,)),
    DESCRIBED,
    Beginning("the fit alone, stage 1 for the time of both", "longer", None, longer=True),
)
# Measures of a row: name -> heading.
COLUMNS = {
    "captions": "captions all right",
    "seen": "identity from a picture",
    "identity": "after stage 1: identity",
    "exact": "all right",
    "prompt": "prompt",
    "seconds": "training, s",
}


def fill(out: Path, seed: int, said: Callable[[str], None] = print, configs: Path = CONFIGS) -> None:
    """Train and measure what OUT lacks of a seed."""
    for beginning in BEGINNINGS:
        path = _result(out, beginning, seed)
        if path.is_file():
            continue
        said(f"seed {seed}: {beginning.name}")
        before, seconds = _before(out, beginning, seed, configs)
        scores: dict[str, float] = {}
        if not beginning.longer:
            pipeline = _pipeline(before)
            scores["captions"] = _captions(pipeline, seed)
            scores["seen"] = measured(pipeline, Row("", "", MLLM_ONLY), PAIRS, seed)["identity"] or 0.0
        after, more = _after(out, beginning, before, seed, configs)
        found = measured(_pipeline(after), Row("", "", MLLM_ONLY), PAIRS, seed)
        scores |= {name: found[name] or 0.0 for name in ("identity", "exact", "prompt")}
        write_text(path, json.dumps({**scores, "seconds": seconds + more}, indent=1) + "\n")


def markdown(out: Path, seeds: Sequence[int]) -> str:
    """Means ± spread over the seeds that are there."""
    lines = [
        "| stage 1 began with | " + " | ".join(COLUMNS.values()) + " | seeds |",
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    for beginning in BEGINNINGS:
        paths = [path for seed in seeds if (path := _result(out, beginning, seed)).is_file()]
        results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        if results:
            cells = [_cell([result[name] for result in results if name in result], name) for name in COLUMNS]
            lines.append(" | ".join([f"| {beginning.name}", *cells, f"{len(results)} |"]))
    return "\n".join(lines) + "\n"


def _before(out: Path, beginning: Beginning, seed: int, configs: Path) -> tuple[Path, float]:
    """The adapter that stage 1 begins with, and the seconds of stage 0, without the fit's, which all have."""
    fitted = out / f"fit-{seed}.safetensors"
    if not fitted.is_file():
        task = _distill(load_config(configs / "toy_stage0.yaml", (f"seed={seed}",)))
        task.begin()
        config = task.adapter.model_copy(update={"trained_by": "a least-squares fit"})
        adapter_file.save(fitted, config, task.module.aggregator.state_dict(), {})
    if beginning.changes is None:
        return fitted, 0.0
    run = out / f"{beginning.key}-{seed}-stage0"
    changes = (f"seed={seed}", f"steps={STEPS_0}", f"init={fitted}", *beginning.changes)
    settings = load_config(configs / "toy_stage0.yaml", changes)
    Trainer(_distill(settings), settings, run).run(resume=True)
    path = run / "adapter.safetensors"
    export(run, path)
    return path, _seconds(run)


def _after(out: Path, beginning: Beginning, before: Path, seed: int, configs: Path) -> tuple[Path, float]:
    """The adapter after stage 1, and stage 1's seconds."""
    steps, run = STEPS_1, out / f"{beginning.key}-{seed}-stage1"
    if beginning.longer:
        spent = _seconds(out / f"{DESCRIBED.key}-{seed}-stage0")
        steps += round(spent / _seconds(out / f"{FIT.key}-{seed}-stage1") * STEPS_1)
    changes = [f"seed={seed}", f"steps={steps}", f"warmup={STEPS_1 // 10}", f"init={before}", "sample_every=0"]
    settings = load_config(configs / "toy_stage1.yaml", changes)
    assert isinstance(settings, TrainConfig)
    task = squeeze_task(settings, places=training.PLACES, openers=training.OPENERS)
    Trainer(task, settings, run).run(resume=True)
    path = run / "adapter.safetensors"
    export(run, path)
    return path, _seconds(run)


def _distill(settings: Any) -> Any:
    assert isinstance(settings, DistillConfig)
    return distill_task(settings, places=training.PLACES, openers=training.TOLD_OPENERS, teachers=training.TEACHERS)


def _seconds(run: Path) -> float:
    rows = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(row)["seconds"] for row in rows)


def _pipeline(adapter: Path) -> SqueezePipeline:
    paths = world.build()
    return SqueezePipeline.from_files(paths.flux, paths.vae, paths.mllm, adapter, fuse=True)


def _captions(pipeline: SqueezePipeline, seed: int) -> float:
    """Share of unseen toys that are painted wholly right from a full caption, without a picture."""
    from dataclasses import replace

    examples, right = unseen_pairs(), []
    for number in range(CAPTIONS):
        pair = examples.pair(number)
        settings = replace(GENERATION, gate=MLLM_ONLY, seed=seed * 100_003 + number)
        made = pipeline.generate(language.caption(pair.target, pair.told), [], settings).images[0]
        right.append(measures.score(np.asarray(made), pair).exact)
    return statistics.fmean(right)


def _result(out: Path, beginning: Beginning, seed: int) -> Path:
    return out / "measured" / f"stage0-{beginning.key}-seed{seed}.json"


def _cell(values: Sequence[float], name: str) -> str:
    if not values:
        return "-"
    digits = 0 if name == "seconds" else 2
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"
