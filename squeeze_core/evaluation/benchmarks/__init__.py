"""Readers of the benchmarks' data, each from the user's copy of the official repository: nothing is downloaded."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ...errors import SqueezeError
from ..cases import Benchmark

# Name on the command line -> module here with `read(folder) -> Benchmark`.
READERS = {
    "dreambench": "dreambench",
    "dreambench-plus": "dreambench_plus",
    "xversebench": "xverse",
    "lamicbench": "lamic",
    "multi-subject": "multi_subject",
    "reasoning": "reasoning",
    "toyworld": "toyworld",
    "stress": "stress",
}


def read(name: str, folder: Path) -> Benchmark:
    """A benchmark from the user's copy of its data. Raises `SqueezeError`."""
    if name not in READERS:
        raise SqueezeError(f'There is no benchmark "{name}"; choose one of {", ".join(READERS)}.')
    if not folder.exists():
        raise SqueezeError(f'There is nothing at "{folder}". Give the folder of your copy of {name}\'s data.')
    return import_module(f".{READERS[name]}", __name__).read(folder)
