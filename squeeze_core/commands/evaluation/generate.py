"""`squeeze eval generate`: the pictures of a benchmark, resumable and in shards."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...errors import SqueezeError
from ..console import progress_bar, say
from ..generate import _gate, _is_toy
from .options import Data

if TYPE_CHECKING:
    from ...generation import GenerationSettings
    from ...pipeline import SqueezePipeline

EXAMPLE = (
    "squeeze eval generate dreambench --data dreambooth --flux FLUX.1-dev --mllm InternVL3-8B-hf "
    "--adapter my.safetensors --out runs/mine --shard 1/4"
)
_Path = Path | None


def generate(
    benchmark: Annotated[
        str,
        typer.Argument(
            help="dreambench, dreambench-plus, xversebench, lamicbench, multi-subject, stress, reasoning, toyworld."
        ),
    ],
    data: Data = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/eval"),
    flux: Annotated[_Path, typer.Option(help="FLUX.1-dev: diffusers folder or .safetensors.")] = None,
    vae: Annotated[_Path, typer.Option(help="Its VAE; not needed with a whole diffusers folder.")] = None,
    mllm: Annotated[_Path, typer.Option(help="Folder of InternVL3 (-hf) or Qwen2.5-VL.")] = None,
    adapter: Annotated[_Path, typer.Option(help="Adapter .safetensors made for both.")] = None,
    shard: Annotated[
        str, typer.Option(help="i/n, the i-th of n parts; empty: all, or the process's under accelerate.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=0, help="Pictures a prompt; 0: as many as the benchmark asks for.")] = 0,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Only the first prompts, to try things out; 0: all.")] = 0,
    side: Annotated[int, typer.Option(help="Pixels of the square pictures; 0: 1024, toy world 128.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 28,
    curve: Annotated[str, typer.Option(help="cosine, raised_cosine, flux or linear.")] = "cosine",
    tau_1: Annotated[
        float | None,
        typer.Option(help="References join below this sigma; both 0, as for reasoning: MLLM only."),
    ] = None,
    tau_2: Annotated[float | None, typer.Option(help="The MLLM falls silent below it.")] = None,
    late: Annotated[str, typer.Option(help="The MLLM in late steps: drop, zero or keep.")] = "",
    guidance: Annotated[float | None, typer.Option(help="FLUX's guidance embedding.")] = None,
    cfg: Annotated[float, typer.Option(help="True CFG against the null context; 1 is off.")] = 1.0,
    label: Annotated[str, typer.Option(help="What to call the run in reports.")] = "",
    dtype: Annotated[str, typer.Option(help="Of FLUX and VAE: default, fp32, bf16, fp16.")] = "default",
    mllm_dtype: Annotated[str, typer.Option(help="default, fp32, bf16, fp16, fp8_e4m3fn.")] = "default",
    device: Annotated[str, typer.Option(help="Such as cuda, cuda:1, cpu; empty: the GPU.")] = "",
    offload: Annotated[bool, typer.Option(help="Only the model at work is on the GPU.")] = False,
) -> None:
    """Make the pictures of a benchmark. Start it again to go on; start it n times with --shard i/n to share work.

    Without --flux, --mllm and --adapter the toy world answers. Under accelerate launch each process takes its
    own shard and GPU.
    """
    from ... import adapter as adapter_file
    from ... import toyworld
    from ...evaluation import benchmarks
    from ...evaluation import generation as runs
    from ...generation import GenerationSettings

    part = runs.parse_shard(shard)
    toy = _is_toy(flux, vae, mllm, adapter)
    if data is None:
        raise SqueezeError(f"Give --data, the folder of your copy of {benchmark}'s data.")
    cases = benchmarks.read(benchmark, data)
    cases = replace(cases, samples=cases.samples[: limit or None], seeds=seeds or cases.seeds)
    trained = adapter_file.read_config(toyworld.build().adapter if toy else adapter)  # type: ignore[arg-type]
    pixels = side or (toyworld.SIDE if toy else 1024)
    settings = GenerationSettings(
        height=pixels,
        width=pixels,
        steps=steps,
        curve=curve,  # type: ignore[arg-type]  # checked by the settings
        gate=_gate(trained.gate, *_taus(benchmark, tau_1, tau_2), late),
        guidance=guidance,
        true_cfg=cfg,
        long_side=toyworld.SIDE if toy else 0,
    )
    made_with = _made_with(settings, data, label or out.resolve().name, first_seed, cases.seeds)
    made_with["models"] = {
        "flux": "toy world" if toy else str(flux),
        "mllm": "toy world" if toy else str(mllm),
        "adapter": "toy world" if toy else _identity(adapter),
    }
    runs.claim(out, cases, made_with)  # before gigabytes are loaded
    say(f"{len(part.part(cases.samples)) * cases.seeds} pictures of {cases.name}, shard {part.index}/{part.count}")
    pipeline = _pipeline(toy, flux, vae, mllm, adapter, dtype, mllm_dtype, _place(device), offload)
    with progress_bar() as progress:
        draw = runs.with_pipeline(pipeline, settings, first_seed)
        done = runs.generate(cases, out, draw, made_with, part, progress)
    say(f"{done.made} pictures made, {done.kept} were there already; {done.batch} at once.")
    print(out)


def _made_with(settings: GenerationSettings, data: Path, label: str, first_seed: int, seeds: int) -> dict[str, Any]:
    gate = settings.gate
    assert gate is not None  # always set above
    return {
        "label": label,
        "data": str(data.resolve()),
        "references": "the first of each subject",
        "side": settings.height,
        "steps": settings.steps,
        "curve": settings.curve,
        "gate": [gate.tau_1, gate.tau_2, gate.late],
        "guidance": settings.guidance,
        "true_cfg": settings.true_cfg,
        "first_seed": first_seed,
        "seeds": seeds,
    }


def _taus(benchmark: str, tau_1: float | None, tau_2: float | None) -> tuple[float | None, float | None]:
    """What the user set; without it, the reasoning benchmark comes from the MLLM alone (Figure 5)."""
    if benchmark == "reasoning" and tau_1 is None and tau_2 is None:
        from ...evaluation.measures.reasoning import MLLM_ONLY_TAUS

        return MLLM_ONLY_TAUS
    return tau_1, tau_2


def _identity(adapter: Path | None) -> str:
    """An adapter by its contents: a file of the same name may be another one tomorrow."""
    from ...evaluation.pictures import file_hash

    assert adapter is not None  # _is_toy has checked
    return f"{adapter.name}, sha256 {file_hash(adapter)[:16]}"


def _place(device: str) -> str | None:
    """Under accelerate or torchrun each process has its own GPU."""
    rank = os.environ.get("LOCAL_RANK")
    if device or rank is None:
        return device or None
    import torch

    return f"cuda:{rank}" if torch.cuda.is_available() else "cpu"


def _pipeline(
    toy: bool,
    flux: Path | None,
    vae: Path | None,
    mllm: Path | None,
    adapter: Path | None,
    dtype: str,
    mllm_dtype: str,
    device: str | None,
    offload: bool,
) -> SqueezePipeline:
    from ... import toyworld
    from ...pipeline import SqueezePipeline

    if toy:
        world = toyworld.load()
        say(f"Toy world: {world.notice}.")
        return SqueezePipeline.from_toy_world(world, device=device or "cpu")
    say("Loading the models ...")
    return SqueezePipeline.from_files(
        flux,  # type: ignore[arg-type]  # _is_toy has checked
        vae,
        mllm,  # type: ignore[arg-type]
        adapter,  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        mllm_dtype=mllm_dtype,
        device=device,
        offload=offload,
    )
