"""`squeeze demo`: the whole method on the toy world, on one contact sheet."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from ..errors import SqueezeError
from ..picture_files import read_picture, write_picture
from .console import make_folder, progress_bar, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..gate import Gate
    from ..gate_rows import GateRow
    from ..generation import GenerationResult
    from ..pipeline import Progress

EXAMPLE = "squeeze demo --reference picture.png --out demo"

_PROMPT = "a photo of the large toy, in the middle, on a beach"
_TOYS, _MOST, _LINE, _CELL = (0, 1, 2), 4, 42, 448  # the first as in workflows/toy_world.json
_CFG = 2.5
# (tau_1, tau_2) and what it shows. tau_1 above 1: references from the first step on; tau_2 above 1: no text.
_GATES = (
    ((0.95, 0.70), "The gate: prompt, then both, then picture"),
    ((0.83, 0.59), "The gate, the picture joining later"),
    ((1.1, 0.0), "No gate: both in every step"),
    ((0.0, 0.0), "The MLLM's reading alone"),
    ((0.95, 0.85), "The gate at the paper's thresholds"),
    ((1.1, 1.1), "The picture's VAE tokens alone"),
)


def demo(
    reference: Annotated[list[Path], typer.Option(help="Your own picture of a toy, up to four.")] = [],  # noqa: B006
    prompt: Annotated[Optional[str], typer.Option(help="What to show.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("squeeze_demo"),
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 28,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pictures.")] = 0,
) -> None:
    """Run the whole method on a CPU, in under a minute: MLLM, aggregator, VAE references, gate, FLUX.

    Writes a contact sheet of several gates, a plot of the MLLM's layers and a plot of the gate. The models are
    the toy world's, tiny. Without --reference, three of its toys.
    """
    if len(reference) > _MOST:
        raise SqueezeError(f"{len(reference)} references are given; the demo takes up to {_MOST}.")
    own = [read_picture(path) for path in reference]
    make_folder(out)

    from .. import toyworld
    from ..contact_sheet import contact_sheet
    from ..gate import Gate
    from ..gate_rows import gate_warnings
    from ..images import to_picture
    from ..pipeline import SqueezePipeline
    from ..plots import plot_gate, plot_layers
    from ..toyworld.making.table import GENERATION

    toy = toyworld.load()
    say(f"Toy world: {toy.notice}.")
    asked = [(prompt or _PROMPT, own)] if own else _toys(prompt)
    if not own:
        write_picture(asked[0][1][0], out / "reference.png")
    settings = replace(GENERATION, steps=steps, seed=seed, true_cfg=_CFG)
    pipeline = SqueezePipeline.from_toy_world(toy)
    rows: list[list[tuple[GenerationResult, Gate]]] = []
    sheet: list[list[tuple[str, Image]]] = []
    with progress_bar() as progress:
        for text, pictures in asked:
            row: list[tuple[GenerationResult, Gate]] = []
            captions = []
            for taus, name in _GATES:
                gate = Gate(*taus)
                counted = _counted(progress, len(rows) * len(_GATES) + len(row), len(asked) * len(_GATES))
                result = pipeline.generate(text, pictures, replace(settings, gate=gate), progress=counted)
                row.append((result, gate))
                captions.append((_caption(name, result, gate), result.images[0]))
            shown = [to_picture(pixels[0]) for pixels in row[0][0].references.encoded]
            rows.append(row)
            said = "\n".join(textwrap.wrap(f'"{text}"', _LINE))
            sheet.append([(said if i == 0 else "", picture) for i, picture in enumerate(shown)] + captions)

    first, gate = rows[0][0]
    stages = _gate_rows(gate, first)
    title = "Left the picture and the prompt that were given; right the new pictures, by six gates"
    drawn = contact_sheet(sheet, title, toy.notice, cell=_CELL)
    print(write_picture(drawn, out / "contact_sheet.png"))
    print(write_picture(plot_layers(first.weights), out / "layers.png"))
    print(write_picture(plot_gate(first.sigmas, stages, gate_warnings(first.sigmas, stages)), out / "gate.png"))


def _toys(prompt: str | None) -> list[tuple[str, list[Image]]]:
    """Prompts and pictures of toys that no training has shown."""
    from ..toyworld.examples import unseen_pairs

    pairs = [unseen_pairs()[number] for number in _TOYS]
    return [(prompt or pair.prompt, list(pair.references)) for pair in pairs]


def _counted(progress: Progress, number: int, of: int) -> Progress:
    """One bar for the same work of all pictures. What is remembered is done once, with the first."""

    def report(what: str, done: int, total: int) -> None:
        if what in ("sample", "decode"):
            progress(what, number * total + done, of * total)
        elif number == 0:
            progress(what, done, total)

    return report


def _caption(name: str, result: GenerationResult, gate: Gate) -> str:
    from ..gate import Stage

    early, middle, late = (result.stages.count(stage) for stage in Stage)
    steps = f"steps: {early} MLLM, {middle} both, {late} picture"
    return f"{name}\n{steps}\ntau_1 {gate.tau_1:g}, tau_2 {gate.tau_2:g}"


def _gate_rows(gate: Gate, result: GenerationResult) -> list[GateRow]:
    """The gate as the plot wants it: one row a stage."""
    import torch

    from ..flux.conditioning import late_context
    from ..gate_rows import GateRow

    rows = []
    context = torch.ones(1, result.context_tokens, 1)
    left, _ = late_context(gate.late, context, context[:, 0])
    for part in gate.intervals():
        if part.empty or part.last < 0:
            continue
        there = context if part.stage.mllm else left
        references = len(result.references.latents) if part.stage.vae else 0
        rows.append(
            GateRow(part.stage.name.lower(), part.first, part.last, there.shape[1], bool(there.any()), references)
        )
    return rows
