"""What the toy world hands to training, which knows nothing of it: its models and its pairs, by their name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..data.config import ToySource
from .examples import ToyExamples
from .world import build

NAME = "toyworld"


def _place(part: str) -> Path:
    return getattr(build(), part)


def _open(source: ToySource) -> ToyExamples:
    return ToyExamples(**source.options)


PLACES: Mapping[str, Callable[[str], Path]] = {NAME: _place}
OPENERS: Mapping[str, Callable[[ToySource], ToyExamples]] = {NAME: _open}
