"""`squeeze eval generate`: the pictures of a benchmark, resumable and in shards."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ...errors import SqueezeError
from ...shard import parse_shard
from .. import options
from ..console import make_folder, progress_bar, say
from ..models import Models, gate_of
from .options import Data

EXAMPLE = (
    "squeeze eval generate dreambench --data dreambooth --flux FLUX.1-dev --mllm InternVL3-8B-hf "
    "--adapter my.safetensors --out runs/mine --shard 1/4"
)


def generate(
    benchmark: Annotated[
        str,
        typer.Argument(
            help="dreambench, dreambench-plus, xversebench, lamicbench, multi-subject, stress, reasoning, toyworld."
        ),
    ],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/eval"),
    flux: options.Flux = None,
    vae: options.Vae = None,
    mllm: options.Mllm = None,
    adapter: options.AdapterFile = None,
    clip: options.Clip = None,
    shard: Annotated[
        str, typer.Option(help="i/n, the i-th of n parts; empty: all, or the process's under accelerate.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=0, help="Pictures a prompt; 0: as many as the benchmark asks for.")] = 0,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Only the first prompts, to try things out; 0: all.")] = 0,
    side: Annotated[int, typer.Option(help="Pixels of the square pictures; 0: 1024, toy world 128.")] = 0,
    steps: options.Steps = 28,
    curve: options.Curve = "cosine",
    tau_1: Annotated[
        float | None,
        typer.Option(help="References join below this sigma; both 0, as for reasoning: MLLM only."),
    ] = None,
    tau_2: Annotated[float | None, typer.Option(help="The MLLM falls silent below it.")] = None,
    late: options.Late = "",
    guidance: options.Guidance = None,
    cfg: options.Cfg = 1.0,
    label: Annotated[str, typer.Option(help="What to call the run in reports.")] = "",
    dtype: options.Dtype = "default",
    mllm_dtype: options.MllmDtype = "default",
    device: options.Device = "",
    offload: options.Offload = False,
) -> None:
    """Make the pictures of a benchmark. Start it again to go on; start it n times with --shard i/n to share work.

    Without --flux, --mllm and --adapter the toy world answers. Under accelerate launch each process takes its
    own shard and GPU.
    """
    from ...evaluation import benchmarks, runs
    from ...generation import GenerationSettings, check_seed

    part = parse_shard(shard)
    make_folder(out)
    models = Models(flux, vae, mllm, adapter, clip, dtype, mllm_dtype, _place(device), offload)
    if data is None:
        raise SqueezeError(f"Give --data, the folder of your copy of {benchmark}'s data.")
    cases = benchmarks.read(benchmark, data)
    cases = replace(cases, samples=cases.samples[: limit or None], seeds=seeds or cases.seeds)
    check_seed(first_seed + cases.seeds - 1)
    trained = models.adapter_config()
    settings = GenerationSettings(
        height=side or models.side,
        width=side or models.side,
        steps=steps,
        curve=curve,  # type: ignore[arg-type]  # checked by the settings
        gate=gate_of(trained.gate, *_taus(benchmark, tau_1, tau_2), late),
        guidance=guidance,
        true_cfg=cfg,
        long_side=models.adapter_config().long_side,
    )
    made_with = {
        "label": label or out.resolve().name,
        "data": str(data.resolve()),
        "references": "the first of each subject",
        **runs.identity(settings),
        "first_seed": first_seed,
        "seeds": cases.seeds,
        "models": {
            "flux": "toy world" if models.toy else str(flux),
            "mllm": "toy world" if models.toy else str(mllm),
            "adapter": "toy world" if models.toy else _identity(adapter),
            **({} if clip is None else {"clip": str(clip)}),
            **({} if models.toy else {"vae": str(vae or flux), "dtype": dtype, "mllm_dtype": mllm_dtype}),
        },
    }
    runs.claim(out, cases, made_with)  # before gigabytes are loaded
    say(f"{len(part.part(cases.samples)) * cases.seeds} pictures of {cases.name}, shard {part.index}/{part.count}")
    pipeline = models.load()
    with progress_bar() as progress:
        draw = runs.with_pipeline(pipeline, settings, first_seed)
        ahead = runs.reading_ahead(pipeline, settings)
        done = runs.generate(cases, out, draw, made_with, part, progress, ahead)
    say(f"{done.made} pictures made, {done.kept} were there already; {done.batch} at once.")
    print(out)


def _taus(benchmark: str, tau_1: float | None, tau_2: float | None) -> tuple[float | None, float | None]:
    """What the user set; without it, the reasoning benchmark comes from the MLLM alone (Figure 5)."""
    if benchmark == "reasoning" and tau_1 is None and tau_2 is None:
        from ...evaluation.measures.reasoning import MLLM_ONLY_TAUS

        return MLLM_ONLY_TAUS
    return tau_1, tau_2


def _identity(adapter: Path | None) -> str:
    """An adapter by its contents: a file of the same name may be another one tomorrow."""
    from ...files import file_hash

    assert adapter is not None  # _is_toy has checked
    return f"{adapter.name}, sha256 {file_hash(adapter)[:16]}"


def _place(device: str) -> str | None:
    """Under accelerate or torchrun each process has its own GPU."""
    rank = os.environ.get("LOCAL_RANK")
    if device or rank is None:
        return device or None
    import torch

    return f"cuda:{rank}" if torch.cuda.is_available() else "cpu"
