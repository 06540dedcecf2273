"""Versions installed here, this machine's memory, and which models fit into it."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

GB = 10**9

# Name -> bytes of the weights: parameters as in the published files, two bytes each in bf16, one in fp8.
_PARAMETERS = {
    "InternVL3-1B": 0.80e9,
    "InternVL3-2B": 1.86e9,
    "InternVL3-8B": 7.40e9,
    "InternVL3-14B": 14.3e9,
    "FLUX.1-dev": 11.9e9,
}
_WORKING = 2 * GB  # activations and the context of CUDA itself
_SYSTEM = 4 * GB  # for everything else in RAM

Fit = Literal["whole", "paged", "no"]


@dataclass(frozen=True)
class Version:
    """A package, what is installed ("" for nothing), and what is wrong with it ("" for nothing).

    needed: without it, or with what is wrong, nothing runs headless; the rest are reports.
    """

    name: str
    installed: str
    problem: str = ""
    needed: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes in total; vram None without a CUDA GPU."""

    ram: int | None
    vram: int | None
    gpu: str = ""


@dataclass(frozen=True)
class FitsHere:
    """Whether a model fits: whole on the GPU, paged from RAM as it is used, or not."""

    model: str
    dtype: str
    bytes: int
    fit: Fit
    sentence: str


def versions(lookup: Callable[[str], str] = version) -> list[Version]:
    """What is installed, with what is too old or missing. lookup: name -> version, as importlib.metadata's."""
    python = platform.python_version()
    rows = [Version("python", python, too_old("Python", python, (3, 10)), needed=True)]
    for name, least, needed in (
        ("torch", (2, 4), True),
        ("torchvision", (), True),
        ("transformers", (4, 52), True),
        ("diffusers", (0, 35), True),
        ("pydantic", (2,), True),
        ("safetensors", (), True),
        ("einops", (), True),
        ("accelerate", (), False),
        ("peft", (), False),
        ("psutil", (), False),
    ):
        try:
            installed = lookup(name)
        except PackageNotFoundError:
            rows.append(Version(name, "", _missing(name), needed))
            continue
        rows.append(Version(name, installed, too_old(name, installed, least), needed))
    return [*rows, _cuda(), _vision()]


def memory() -> Memory:
    """RAM by psutil, VRAM by torch; None for what cannot be told."""
    try:
        import psutil

        ram = psutil.virtual_memory().total
    except ModuleNotFoundError:
        ram = None
    import torch

    if not torch.cuda.is_available():
        return Memory(ram, None)
    properties = torch.cuda.get_device_properties(0)
    return Memory(ram, properties.total_memory, properties.name)


def what_fits(memory: Memory) -> list[FitsHere]:
    """One plain sentence for each model and dtype. They take turns, so each is judged by itself."""
    rows = []
    for model, parameters in _PARAMETERS.items():
        for dtype, width in (("bf16", 2), ("fp8", 1)):
            rows.append(_fits(model, dtype, int(parameters * width), memory))
    return rows


def _fits(model: str, dtype: str, size: int, memory: Memory) -> FitsHere:
    takes = f"{size / GB:.1f} GB"
    room = None if memory.ram is None else max(memory.ram - _SYSTEM, 0)
    in_ram = room is None or size <= room
    if memory.vram is None:
        if in_ram:
            return FitsHere(model, dtype, size, "whole", f"{takes}: fits into RAM; without a GPU it is very slow.")
        return FitsHere(model, dtype, size, "no", f"{takes}: more than the RAM leaves free.")
    if size + _WORKING <= memory.vram:
        return FitsHere(model, dtype, size, "whole", f"{takes}: fits whole on the GPU.")
    if in_ram:
        return FitsHere(model, dtype, size, "paged", f"{takes}: paged from RAM as it is used, so slower.")
    return FitsHere(model, dtype, size, "no", f"{takes}: neither the GPU nor the RAM holds it; take a smaller one.")


def _cuda() -> Version:
    try:
        import torch
    except ImportError as error:
        return Version("CUDA", "", f"torch does not import ({error}). Reinstall torch.", needed=True)
    if torch.cuda.is_available():
        return Version("CUDA", str(torch.version.cuda))
    return Version("CUDA", "", "torch sees no CUDA GPU: only the toy world is quick here.")


def _vision() -> Version:
    """A torchvision of another torch imports badly, and takes the MLLM's classes with it."""
    try:
        import torchvision

        return Version("torchvision import", "works" if torchvision.__version__ else "")
    except (ImportError, RuntimeError, OSError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        return Version(
            "torchvision import",
            "",
            f"torchvision does not import ({first_line}). Install the one that belongs to your torch.",
            needed=True,
        )


def _missing(name: str) -> str:
    return f'{name} is missing. Install it with: pip install "squeeze-mllm[demo]"'


def too_old(name: str, installed: str, least: tuple[int, ...]) -> str:
    """A sentence when the version installed is below the least one, else ""; unreadable versions pass."""
    numbers = tuple(map(int, re.findall(r"\d+", installed)[: len(least)]))
    if numbers >= least or not numbers:
        return ""
    wanted = ".".join(map(str, least))
    return f"{name} {installed} is too old: {wanted} or newer is needed. Update it."
