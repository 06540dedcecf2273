"""`squeeze generate`: a prompt and reference pictures -> picture files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import SqueezeError
from .console import check_output, progress_bar, read_mask, read_picture, say, write_picture

if TYPE_CHECKING:
    from ..adapter import GateSpec
    from ..gate import Gate
    from ..generation import GenerationSettings

EXAMPLE = (
    'squeeze generate --reference toy.png --prompt "a photo of the small toy, at the top, on a beach" --out out.png'
)

_SIDE = 1024
_Models = Optional[Path]  # noqa: UP045, typer reads it at run time, on Python 3.10 too


def generate(
    prompt: Annotated[str, typer.Option(help="What to show; pictures may be named in their order.")],
    reference: Annotated[list[Path], typer.Option(help="Picture of a subject; repeat for several.")] = [],  # noqa: B006
    mask: Annotated[list[Path], typer.Option(help="White at the subject; one for each reference.")] = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="File to write; with --count, numbers are added.")] = Path("out.png"),
    flux: Annotated[_Models, typer.Option(help="FLUX.1-dev: diffusers folder or .safetensors.")] = None,
    vae: Annotated[_Models, typer.Option(help="Its VAE; not needed with a whole diffusers folder.")] = None,
    mllm: Annotated[_Models, typer.Option(help="Folder of InternVL3 (-hf) or Qwen2.5-VL.")] = None,
    adapter: Annotated[_Models, typer.Option(help="Adapter .safetensors made for both.")] = None,
    strength: Annotated[float, typer.Option(help="Of the adapter's LoRA.")] = 1.0,
    height: Annotated[int, typer.Option(help="Pixels, a multiple of 16; 0: 1024, toy world 128.")] = 0,
    width: Annotated[int, typer.Option(help="Pixels, a multiple of 16; 0: 1024, toy world 128.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 28,
    curve: Annotated[str, typer.Option(help="cosine, raised_cosine, flux or linear.")] = "cosine",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same picture.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures of one seed.")] = 1,
    tau_1: Annotated[Optional[float], typer.Option(help="References join below this sigma.")] = None,  # noqa: UP045
    tau_2: Annotated[Optional[float], typer.Option(help="The MLLM falls silent below it.")] = None,  # noqa: UP045
    late: Annotated[str, typer.Option(help="The MLLM in late steps: drop, zero or keep.")] = "",
    guidance: Annotated[Optional[float], typer.Option(help="FLUX's guidance embedding.")] = None,  # noqa: UP045
    cfg: Annotated[float, typer.Option(help="True CFG against the null context; 1 is off.")] = 1.0,
    long_side: Annotated[int, typer.Option(help="References' longer side; 0: 512, several 320.")] = 0,
    fit: Annotated[str, typer.Option(help="Sides to multiples of 16: resize or pad.")] = "resize",
    placement: Annotated[str, typer.Option(help="auto, uxo, offset or index.")] = "auto",
    text_layers: Annotated[str, typer.Option(help='MLLM layers kept, such as "0-9,20-28".')] = "all",
    image_layers: Annotated[str, typer.Option(help="The same for picture tokens.")] = "all",
    system_prompt: Annotated[Optional[str], typer.Option(help="Instead of the adapter's.")] = None,  # noqa: UP045
    tiles: Annotated[Optional[int], typer.Option(help="Tiles a picture, 1 to 12.")] = None,  # noqa: UP045
    dtype: Annotated[str, typer.Option(help="Of FLUX and VAE: default, fp32, bf16, fp16.")] = "default",
    mllm_dtype: Annotated[str, typer.Option(help="default, fp32, bf16, fp16, fp8_e4m3fn.")] = "default",
    device: Annotated[str, typer.Option(help="Such as cuda, cuda:1, cpu; empty: the GPU.")] = "",
    offload: Annotated[bool, typer.Option(help="Only the model at work is on the GPU.")] = False,
) -> None:
    """Generate pictures of your subject.

    Without --flux, --mllm and --adapter the toy world answers: tiny models of the real architectures, on a CPU,
    in seconds.
    """
    check_output(out)
    if mask and len(mask) != len(reference):
        raise SqueezeError(
            f"There are {len(reference)} reference pictures and {len(mask)} masks. Give one mask for each picture."
        )
    images = [read_picture(path) for path in reference]
    masks = [read_mask(path) for path in mask] if mask else None
    toy = _is_toy(flux, vae, mllm, adapter)
    from .. import adapter as adapter_file
    from .. import toyworld
    from ..generation import GenerationSettings
    from ..layers import LayerSelection
    from ..mllm.backbone import Prompt
    from ..mllm.prompt import check_prompt

    if toy:
        say(f"Toy world: {toyworld.NOTICES[toyworld.is_trained(toyworld.build())]}.")
    # Whatever can be wrong is found before gigabytes are loaded.
    trained = adapter_file.read_config(toyworld.build().adapter if toy else adapter)  # type: ignore[arg-type]
    side = toyworld.SIDE if toy else _SIDE  # a FLUX of one size knows no other
    settings = GenerationSettings(
        height=height or side,
        width=width or side,
        steps=steps,
        curve=curve,  # type: ignore[arg-type]  # checked by the settings
        seed=seed,
        batch=count,
        gate=_gate(trained.gate, tau_1, tau_2, late),
        guidance=guidance,
        true_cfg=cfg,
        long_side=long_side or (toyworld.SIDE if toy else 0),
        fit=fit,  # type: ignore[arg-type]
        placement=placement,  # type: ignore[arg-type]
        text_layers=text_layers,
        image_layers=image_layers,
        system_prompt=system_prompt,
        tiles=tiles,
    )
    check_prompt(Prompt(prompt, tuple(images), system_prompt or ""))
    for layers in (text_layers, image_layers):
        LayerSelection.parse(layers).indices(trained.dla.layers)
    from ..pipeline import SqueezePipeline

    if toy:
        pipeline = SqueezePipeline.from_toy_world(toyworld.load(), strength=strength, device=device or "cpu")
    else:
        say("Loading the models ...")
        pipeline = SqueezePipeline.from_files(
            flux,  # type: ignore[arg-type]  # there unless toy
            vae,
            mllm,  # type: ignore[arg-type]
            adapter,  # type: ignore[arg-type]
            dtype=dtype,  # type: ignore[arg-type]
            mllm_dtype=mllm_dtype,
            strength=strength,
            device=device or None,
            offload=offload,
        )
    with progress_bar() as progress:
        result = pipeline.generate(prompt, images, settings, masks=masks, progress=progress)
    notes = {"squeeze": json.dumps(_notes(prompt, reference, settings, toy))}
    for number, picture in enumerate(result.images, start=1):
        path = out if len(result.images) == 1 else out.with_stem(f"{out.stem}_{number}")
        print(write_picture(picture, path, notes))


def _is_toy(flux: Path | None, vae: Path | None, mllm: Path | None, adapter: Path | None) -> bool:
    """All of the models are the user's, or none is."""
    needed = {"--flux": flux, "--mllm": mllm, "--adapter": adapter}
    missing = [name for name, path in needed.items() if path is None]
    if len(missing) == len(needed) and vae is None:
        return True
    if missing:
        raise SqueezeError(
            f"Some models are given, but not {' and '.join(missing)}. Give --flux, --mllm and --adapter "
            "together (and --vae, unless --flux is a whole diffusers folder), or none for the toy world."
        )
    return False


def _gate(own: GateSpec, tau_1: float | None, tau_2: float | None, late: str) -> Gate:
    """The adapter's gate, with what the user set instead."""
    from ..gate import Gate

    return Gate(
        own.tau_1 if tau_1 is None else tau_1,
        own.tau_2 if tau_2 is None else tau_2,
        late or own.late,  # type: ignore[arg-type]
    )


def _notes(prompt: str, references: list[Path], settings: GenerationSettings, toy: bool) -> dict:
    from dataclasses import asdict

    return {
        "prompt": prompt,
        "references": [path.name for path in references],
        "toy_world": toy,
        **asdict(settings),
    }
