"""`squeeze doctor`: what is installed, which models are found, which are missing, what fits in memory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from ..diagnosis.comfyui import ComfyUI
    from ..diagnosis.machine import FitsHere, Memory, Version
    from ..diagnosis.models import Found, Wanted

EXAMPLE = "squeeze doctor --comfyui ~/ComfyUI"
LEAST_COMFYUI = (0, 17)


@dataclass(frozen=True)
class Diagnosis:
    """All that the doctor found. models: each model wanted, with the files found for it."""

    versions: list[Version]
    comfyui: ComfyUI | None
    models: list[tuple[Wanted, list[Found]]]
    memory: Memory
    fits: list[FitsHere]

    @property
    def healthy(self) -> bool:
        """Whether the toy world can run: everything needed is there, in a version that works."""
        return not any(version.needed and version.problem for version in self.versions)

    def as_dict(self) -> dict:
        comfyui = self.comfyui and {
            "folder": str(self.comfyui.folder),
            "version": self.comfyui.version,
            "notes": self.comfyui.notes,
        }
        return {
            "healthy": self.healthy,
            "versions": [asdict(version) for version in self.versions],
            "comfyui": comfyui,
            "models": [
                {
                    **{key: value for key, value in asdict(wanted).items() if key != "pattern"},
                    "goes_to": wanted.goes_to,
                    "found": [{**asdict(found), "path": str(found.path)} for found in files],
                }
                for wanted, files in self.models
            ],
            "memory": asdict(self.memory),
            "fits": [asdict(row) for row in self.fits],
        }


def doctor(
    comfyui: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="ComfyUI's folder; without it, COMFYUI_PATH or the usual places.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Tell what is installed, which models are there, where missing ones go, and what fits in memory.

    Exit status 0 when the toy world can run here; missing models are no failure.
    """
    diagnosis = examine(comfyui)
    if as_json:
        print(json.dumps(diagnosis.as_dict(), indent=2))
    else:
        _show(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def examine(comfyui: Path | None = None) -> Diagnosis:
    """Look at everything. Raises `SqueezeError` when the folder given is no ComfyUI."""
    from ..diagnosis import comfyui as place
    from ..diagnosis import machine

    installation = place.find(comfyui)
    versions = machine.versions()
    if installation is not None:
        problem = machine.too_old("ComfyUI", installation.version, LEAST_COMFYUI)
        versions.append(machine.Version("ComfyUI", installation.version, problem))
    if any(version.name in ("torch", "CUDA") and version.needed and version.problem for version in versions):
        return Diagnosis(versions, installation, [], machine.Memory(None, None), [])  # the rest needs torch
    from ..diagnosis.models import inventory

    memory = machine.memory()
    models = inventory(installation.folders if installation else {})
    return Diagnosis(versions, installation, models, memory, machine.what_fits(memory))


def _show(diagnosis: Diagnosis) -> None:
    from rich.console import Console

    out = Console(highlight=False)

    def line(text: str = "", style: str = "") -> None:
        out.print(text, style=style or None, markup=False, soft_wrap=True)

    line("Versions", "bold")
    for version in diagnosis.versions:
        line(f"  {version.name:<20} {version.installed or '-'}")
        if version.problem:
            line(f"    {version.problem}", "red" if version.needed else "yellow")
    line()
    if diagnosis.comfyui is None:
        line("ComfyUI: not found. Give its folder with --comfyui, or set COMFYUI_PATH.", "yellow")
    else:
        line(f"ComfyUI {diagnosis.comfyui.version}: {diagnosis.comfyui.folder}", "bold")
        for note in diagnosis.comfyui.notes:
            line(f"  {note}", "yellow")
    for wanted, files in diagnosis.models:
        if diagnosis.comfyui is None:
            break
        _show_model(line, wanted, files)
    missing = [wanted for wanted, files in diagnosis.models if not any(found.usable for found in files)]
    if missing:
        line()
        line("Missing, all optional; run the commands in ComfyUI's folder", "bold")
    for wanted in missing:
        line(f"  {wanted.name}, for {wanted.use}: goes to {wanted.goes_to}")
        line(f"    {wanted.get}")
        line(f"    licence: {wanted.licence}")
    line()
    line(f"Memory: {_memory(diagnosis.memory)}", "bold")
    for row in diagnosis.fits:
        line(f"  {row.model:<15} {row.dtype:<5} {row.sentence}")
    line()
    if diagnosis.healthy:
        line("The toy world can run here. Try it: squeeze demo", "green")
    else:
        line("The toy world cannot run here yet: see the lines in red.", "red")


def _show_model(line, wanted: Wanted, files: list[Found]) -> None:
    line(f"  {wanted.name:<20} " + ("" if files else "not found"))
    for found in files:
        size = f"{found.bytes / 1e9:.2f} GB" if found.bytes >= 1e7 else f"{found.bytes / 1e6:.2f} MB"
        detail = f", {found.detail}" if found.detail else ""
        line(f"    {found.name} ({size}{detail})", "" if found.usable else "yellow")


def _memory(memory: Memory) -> str:
    ram = "RAM unknown" if memory.ram is None else f"{memory.ram / 1e9:.1f} GB of RAM"
    return f"{ram}, " + ("no CUDA GPU" if memory.vram is None else f"{memory.vram / 1e9:.1f} GB on {memory.gpu}")
