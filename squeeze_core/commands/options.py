"""Options that `squeeze generate` and `squeeze eval generate` share: which models, and how FLUX samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# Typer reads these at run time, on Python 3.10 too.
Flux = Annotated[Optional[Path], typer.Option(help="FLUX.1-dev: diffusers folder or .safetensors.")]  # noqa: UP045
Vae = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Its VAE; not needed with a whole diffusers folder."),
]
Mllm = Annotated[Optional[Path], typer.Option(help="Folder of InternVL3 (-hf) or Qwen2.5-VL.")]  # noqa: UP045
AdapterFile = Annotated[Optional[Path], typer.Option(help="Adapter .safetensors made for both.")]  # noqa: UP045
Aligner = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="X2I's aligner as downloaded, .pt, in place of --adapter. Converted, it is an --adapter."),
]
Clip = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder of CLIP-L, if the adapter asks for it; not needed with a whole diffusers folder."),
]
Dtype = Annotated[str, typer.Option(help="Of real FLUX and VAE: default, fp32, bf16, fp16.")]
MllmDtype = Annotated[str, typer.Option(help="Of a real MLLM: default, fp32, bf16, fp16, fp8_e4m3fn.")]
Changes = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the config, such as steps=100 models.mllm=DIR."),
]
Device = Annotated[str, typer.Option(help="Such as cuda, cuda:1, cpu; empty: the GPU.")]
Offload = Annotated[bool, typer.Option(help="Of real models, only the one at work is on the GPU.")]

Steps = Annotated[int, typer.Option(min=1, help="Sampling steps.")]
Curve = Annotated[str, typer.Option(help="cosine, raised_cosine, flux or linear.")]
Late = Annotated[str, typer.Option(help="The MLLM in late steps: drop, zero or keep.")]
Guidance = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="FLUX.1-dev's guidance embedding; without it, what the adapter was trained with."),
]
Cfg = Annotated[
    float,
    typer.Option(
        help="True classifier-free guidance against the null context, CFG in the tables; 1 is off. A second pass a "
        "step, with the adapter's guidance."
    ),
]
