"""The toy world's own table: what each row of the paper's tables does here, by the exact measures.

Every row is a trained adapter, a way to generate, and a set of test pairs whose identities no training has
shown. Results are kept one file a row and seed, so that one command fills what is missing.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import SqueezeError
from ...files import write_text
from ...gate import Gate
from ...generation import GenerationSettings
from ...references import MULTIPLE
from ...shard import Shard
from ...sigmas import at_size
from .. import measures, scenes
from ..examples import SEED_OF_TEST_PAIRS, ToyExamples, unseen_pairs

if TYPE_CHECKING:
    from ...flux.loading import Dtype
    from ...pipeline import SqueezePipeline

STEPS = 28
MEASURES = ("identity", "exact", "prompt", "pose_variation")
GENERATION = GenerationSettings(
    height=scenes.SIDE, width=scenes.SIDE, steps=STEPS, long_side=scenes.SIDE, curve="cosine"
)
PAPERS, MLLM_ONLY, VAE_ONLY, BOTH = Gate(), Gate(0.0, 0.0), Gate(1.1, 1.1), Gate(1.1, 0.0)


def as_at(side: int) -> Gate:
    """The paper's taus where the toy world's pictures are as uncertain as those of so many pixels a side.

    Noise hides more of a picture of 64 tokens. Which size the paper's have is not said; 512 is usual in training.
    """
    tokens, given = (scenes.SIDE // MULTIPLE) ** 2, (side // MULTIPLE) ** 2
    return Gate(at_size(PAPERS.tau_1, tokens, given), at_size(PAPERS.tau_2, tokens, given))


GATED = as_at(512)


@dataclass(frozen=True)
class Row:
    """One line. table: of the paper. adapter: a file in OUT/weights. kind: of the pairs."""

    name: str
    table: str
    gate: Gate = GATED
    adapter: str = "adapter"
    kind: scenes.Kind = "one"
    settings: GenerationSettings = field(default=GENERATION)

    @property
    def key(self) -> str:
        return "".join(
            letter if letter.isalnum() or letter in ".-" else "_" for letter in f"{self.table}_{self.name}"
        )


def rows() -> list[Row]:
    """Every row that needs nothing but the adapters of `squeeze toyworld train` and of the ablations."""
    found = [
        Row("MLLM + VAE, gated", "1, 2, 7"),
        Row("MLLM only", "1, 2", MLLM_ONLY),
        Row("VAE only", "1, 2", VAE_ONLY),
        Row("MLLM + VAE, the paper's taus as they are", "1, 2", PAPERS),
    ]
    for tau_1, tau_2 in ((0.0, 0.0), (1.0, 1.0), (0.97, 0.90), (0.95, 0.70), (0.85, 0.85), (0.85, 0.70)):
        found.append(Row(f"taus {tau_1}, {tau_2}, CFG 2.5", "C", Gate(tau_1, tau_2), settings=_cfg(2.5)))
    for cfg in (1.5, 2.0, 2.5, 3.0, 4.0):
        found.append(Row(f"taus 0.95, 0.85, CFG {cfg}", "C", PAPERS, settings=_cfg(cfg)))
    found.append(Row("taus 1.1, 1.1, CFG 2.5", "C", VAE_ONLY, settings=_cfg(2.5)))
    for side in (512, 1024):
        gate = as_at(side)
        name = f"taus {gate.tau_1:.2f}, {gate.tau_2:.2f} (0.95, 0.85 of {side} pixels), CFG 2.5"
        found.append(Row(name, "C", gate, settings=_cfg(2.5)))
    for layers in ("0-1", "2-3", "4-6"):
        others = ",".join(part for part in ("0-1", "2-3", "4-6") if part != layers)
        for what, settings in (
            ("text", replace(GENERATION, text_layers=others)),
            ("image", replace(GENERATION, image_layers=others)),
        ):
            found.append(Row(f"{what} layers {layers} zeroed", "A", settings=settings))
    for name in ("dual", "single", "last_layer", "blend_vit", "mix_vit"):
        found.append(Row(name, "6", MLLM_ONLY, adapter=f"table6_{name}"))
    found.append(Row("both branches throughout", "7", BOTH))
    for stages in ("two_stages", "one_stage"):
        name, adapter = stages.replace("_", " "), f"table7_{stages}"
        found.append(Row(f"{name}, gated", "7", adapter=adapter))
        found.append(Row(f"{name}, both branches throughout", "7", BOTH, adapter=adapter))
    for kind in ("reasoning", "several"):
        found.append(Row(f"{kind}, MLLM only", "3", MLLM_ONLY, kind=kind))
        found.append(Row(f"{kind}, gated", "3", kind=kind))
        found.append(Row(f"{kind}, both branches throughout", "3", BOTH, kind=kind))
        found.append(Row(f"{kind}, VAE only", "3", VAE_ONLY, kind=kind))
    return found


def _cfg(scale: float) -> GenerationSettings:
    return replace(GENERATION, true_cfg=scale)


def fill(
    out: Path,
    wanted: Iterable[Row],
    *,
    pairs: int,
    seeds: Sequence[int],
    dtype: Dtype = "default",
    shard: Shard | None = None,
    progress: Callable[[str, int, int], None] = lambda row, done, total: None,
) -> None:
    """Measure the rows that OUT/measured lacks. Rows whose adapter is not in OUT/weights are left out.

    pairs: test pairs a row and seed. dtype: of FLUX and the VAE. shard: of the rows; None is all. Raises
    `SqueezeError` when nothing has been trained.
    """
    from .. import world

    if not world.is_whole(out / "weights"):
        raise SqueezeError(f'"{out}" has no trained toy world. Make it: squeeze toyworld train --out {out}')
    wanted = list(wanted)
    if not any((out / "weights" / f"{row.adapter}.safetensors").is_file() for row in wanted):
        missing = ", ".join(sorted({row.adapter for row in wanted}))
        raise SqueezeError(f'None of the adapters of these rows ({missing}) is in "{out / "weights"}". Train one.')
    shard = shard or Shard()
    folder = out / ("world" if shard.count == 1 else f"world_{shard.index}")  # processes write one each
    pipelines: dict[str, SqueezePipeline] = {}
    for row in shard.part(wanted):
        adapter = out / "weights" / f"{row.adapter}.safetensors"
        for seed in seeds:
            path = _result(out, row, seed, pairs, dtype)
            if path.is_file() or not adapter.is_file():
                continue
            if row.adapter not in pipelines:
                pipelines = {row.adapter: _pipeline(folder, out, adapter, dtype)}  # one at a time
            report = partial(progress, row.name)
            scores = measured(pipelines[row.adapter], row, pairs, seed, report)
            write_text(path, json.dumps(scores, indent=1) + "\n")


def measured(
    pipeline: SqueezePipeline,
    row: Row,
    pairs: int,
    seed: int,
    done: Callable[[int, int], None] = lambda number, total: None,
) -> dict[str, float | None]:
    """Means over test pairs, by name of the measure; None where no picture could be measured."""
    from PIL import Image

    examples = unseen_pairs(row.kind)
    scores = []
    for number in range(pairs):
        pair = examples.pair(number)
        references = [Image.fromarray(scenes.render(scene)) for scene in pair.references]
        settings = replace(row.settings, gate=row.gate, seed=seed * 100_003 + number)
        made = pipeline.generate(pair.prompt, references, settings).images[0]
        scores.append(measures.score(np.asarray(made), pair))
        done(number + 1, pairs)
    return {name: _mean([getattr(score, name) for score in scores]) for name in MEASURES}


def markdown(
    out: Path, wanted: Iterable[Row], *, pairs: int, seeds: Sequence[int], dtype: Dtype = "default"
) -> str:
    """The table of what is measured: mean ± spread over seeds, or the mean of the one seed that there is."""
    lines = [
        "| table | row | identity | all right | prompt | pose variation | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in wanted:
        paths = [path for seed in seeds if (path := _result(out, row, seed, pairs, dtype)).is_file()]
        if paths:
            results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            cells = [_cell([result[name] for result in results]) for name in MEASURES]
            lines.append(" | ".join([f"| {row.table}", row.name, *cells, f"{len(paths)} |"]))
    return "\n".join(lines) + "\n"


def layer_importance(out: Path, name: str, pairs: int = 50) -> list[float] | None:
    """Fig. 3(b): what each MLLM layer gives in a single-LAP adapter, from 0 to 1 together; None without it.

    name: "fig3b_text" or "fig3b_picture". The mean over prompts of |a_j| at the tokens that it was trained on.
    """
    from PIL import Image

    from ... import adapter as adapter_file
    from ...mllm.backbone import Prompt
    from ...mllm.loading import load
    from .. import world

    path = out / "weights" / f"{name}.safetensors"
    if not path.is_file():
        return None
    aggregator = adapter_file.load(path).aggregator.float()
    backbone = load(world.assemble(out / "world", out / "weights").mllm, device="cpu")
    says = "caption" if name == "fig3b_text" else "same"
    examples = ToyExamples(seed=SEED_OF_TEST_PAIRS, split="test", kinds={"one": 1.0}, says=says)
    given = np.zeros(aggregator.config.layers)
    for number in range(pairs):
        example = examples[number]
        pictures: tuple[Image.Image, ...] = () if says == "caption" else example.references
        states = backbone.encode(Prompt(example.prompt, pictures))
        with torch.no_grad():
            _, weights = aggregator(states.states.float(), states.image_mask)
        layers = weights.text if says == "caption" else weights.image
        assert layers is not None
        given += layers.abs().numpy()
    return list(given / given.sum())


def around(document: Path, name: str = "table") -> tuple[str, str]:
    """What stands before and after a table in a Markdown file. Raises `SqueezeError` when it has no place.

    name: of its marks, `<!-- NAME -->` and `<!-- end of NAME -->`.
    """
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SqueezeError(f'"{document}" lacks the lines "{first}" and "{last}", between which the table goes.')
    return before + begin, end + after


def write_into(document: Path, table: str, name: str = "table") -> None:
    """Put a table between its marks in a Markdown file. Raises `SqueezeError` when they are not there."""
    before, after = around(document, name)
    write_text(document, f"{before}\n{table}{after}")


def _pipeline(folder: Path, out: Path, adapter: Path, dtype: Dtype) -> SqueezePipeline:
    from ...pipeline import SqueezePipeline
    from .. import world

    paths = world.assemble(folder, out / "weights")
    return SqueezePipeline.from_files(paths.flux, paths.vae, paths.mllm, adapter, dtype=dtype, fuse=True)


def _result(out: Path, row: Row, seed: int, pairs: int, dtype: Dtype) -> Path:
    precision = "" if dtype == "default" else f"-{dtype}"
    return out / "measured" / f"{row.key}-{pairs}pairs-seed{seed}{precision}.json"


def _mean(values: Sequence[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.3f}{spread}"
