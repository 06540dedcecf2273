"""Data sets as they are published, read where they lie; one file each. `OPENERS` opens them by their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..config import MUSARSource, UNOSource
from ..examples import Examples

Opener = Callable[[Any], Examples]


def _uno(source: UNOSource) -> Examples:
    from .uno import UNO

    return UNO(source.folder, labels=source.labels, min_score=source.min_score)


def _musar(source: MUSARSource) -> Examples:
    from .musar import MUSAR

    return MUSAR(source.folder, labels=source.labels)


OPENERS: Mapping[str, Opener] = {"uno": _uno, "musar": _musar}
