"""`squeeze demo`: the whole method on the toy world, on one contact sheet."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SqueezeError
from .console import make_folder, progress_bar, read_picture, say, write_picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..gate import Gate
    from ..generation import GenerationResult
    from ..pipeline import Progress
    from ..plots import GateRow

EXAMPLE = "squeeze demo --reference picture.png --out demo"

_PROMPT = "A photo of the subject of picture 1 on a beach at sunset"
_SIDE, _LONG_SIDE, _MOST = 256, 192, 4
# (tau_1, tau_2) and what it shows; above 1 means never.
_GATES = (
    ((0.95, 0.85), "the paper's gate"),
    ((0.0, 0.0), "MLLM only"),
    ((1.1, 1.1), "VAE only"),
    ((1.1, 0.0), "both in every step"),
    ((0.98, 0.92), "references sooner"),
    ((0.85, 0.60), "MLLM for longer"),
)


def demo(
    reference: Annotated[list[Path], typer.Option(help="Your own picture, up to four.")] = [],  # noqa: B006
    prompt: Annotated[str, typer.Option(help="What to show.")] = _PROMPT,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("squeeze_demo"),
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
) -> None:
    """Run everything once on a CPU, in under a minute: MLLM, aggregator, VAE references, gate, FLUX.

    Writes a contact sheet of several gates, a plot of the MLLM's layers and a plot of the gate. The models are
    the toy world's, tiny and untrained: expect noise-like pictures.
    """
    if len(reference) > _MOST:
        raise SqueezeError(f"{len(reference)} references are given; the demo takes up to {_MOST}.")
    pictures = [read_picture(path) for path in reference]
    make_folder(out)
    if not pictures:
        pictures = [read_picture(write_picture(_sample(), out / "reference.png"))]

    from .. import toyworld
    from ..contact_sheet import contact_sheet
    from ..gate import Gate
    from ..generation import GenerationSettings
    from ..pipeline import SqueezePipeline
    from ..plots import gate_warnings, plot_gate, plot_layers

    say(f"Toy world: {toyworld.NOTICE}.")
    settings = GenerationSettings(height=_SIDE, width=_SIDE, steps=steps, seed=seed, long_side=_LONG_SIDE)
    pipeline = SqueezePipeline.from_toy_world(toyworld.load())
    results: list[tuple[str, GenerationResult, Gate]] = []
    with progress_bar() as progress:
        for number, (taus, name) in enumerate(_GATES):
            gate = Gate(*taus)
            counted = _counted(progress, number, len(_GATES))
            result = pipeline.generate(prompt, pictures, replace(settings, gate=gate), progress=counted)
            results.append((name, result, gate))

    first, gate = results[0][1], results[0][2]
    references = [
        (f"reference {number}, as encoded", _picture(pixels))
        for number, pixels in enumerate(first.references.encoded, start=1)
    ]
    variants = [(_caption(name, result, gate, first), result.images[0]) for name, result, gate in results]
    sheet = contact_sheet([references, variants[:3], variants[3:]], f'"{prompt}"', f"Toy world, {toyworld.NOTICE}.")
    rows = _gate_rows(gate, first)
    warnings = gate_warnings(first.sigmas, rows)
    print(write_picture(sheet, out / "contact_sheet.png"))
    print(write_picture(plot_layers(first.weights), out / "layers.png"))
    print(write_picture(plot_gate(first.sigmas, rows, warnings), out / "gate.png"))


def _counted(progress: Progress, number: int, of: int) -> Progress:
    """One bar for the same work of all pictures. What is remembered is done once, with the first."""

    def report(what: str, done: int, total: int) -> None:
        if what in ("sample", "decode"):
            progress(what, number * total + done, of * total)
        elif number == 0:
            progress(what, done, total)

    return report


def _caption(name: str, result: GenerationResult, gate: Gate, first: GenerationResult) -> str:
    from ..gate import Stage

    early, middle, late = (result.stages.count(stage) for stage in Stage)
    away = float((result.latents - first.latents).norm() / first.latents.norm())
    change = "" if result is first else f"\nlatents {away:.0%} away from the first"
    return f"{name}, tau {gate.tau_1:g} and {gate.tau_2:g}\n{early} MLLM, {middle} both, {late} VAE steps{change}"


def _gate_rows(gate: Gate, result: GenerationResult) -> list[GateRow]:
    """The gate as the plot wants it: one row a stage."""
    from ..plots import GateRow

    rows = []
    for part in gate.intervals():
        if part.empty or part.last < 0:
            continue
        heard = part.stage.mllm or gate.late == "keep"
        tokens = 1 if not heard and gate.late == "drop" else result.context_tokens
        references = len(result.references.latents) if part.stage.vae else 0
        rows.append(GateRow(part.stage.name.lower(), part.first, part.last, tokens, heard, references))
    return rows


def _picture(pixels) -> Image:
    """[1, H, W, 3], 0 to 1 -> a picture."""
    from ..images import to_picture

    return to_picture(pixels[0])


def _sample() -> Image:
    """A subject to start with: a striped star on a pale ground."""
    from PIL import Image, ImageDraw

    size = 480
    picture = Image.new("RGB", (size, size), "#dfe8ee")
    corners = []
    for i in range(10):
        radius, angle = (200 if i % 2 == 0 else 85), math.pi * (i / 5 - 0.5)
        corners.append((size / 2 + radius * math.cos(angle), size / 2 + radius * math.sin(angle)))
    star = Image.new("L", (size, size), 0)
    ImageDraw.Draw(star).polygon(corners, fill=255)
    stripes = Image.new("RGB", (size, size), "#d43d2f")
    draw = ImageDraw.Draw(stripes)
    for top in range(0, size, 48):
        draw.rectangle((0, top, size, top + 20), fill="#f5c04a")
    picture.paste(stripes, mask=star)
    return picture
