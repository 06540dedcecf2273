"""Data sets as they are published, read where they lie; one file each. `OPENERS` opens them by their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..config import MUSARSource, MusicSource, TextSource, UNOSource
from ..examples import Examples
from ..told import ToldExamples

Opener = Callable[[Any], Examples]
ToldOpener = Callable[[Any], ToldExamples]


def _uno(source: UNOSource) -> Examples:
    from .uno import UNO

    return UNO(source.folder, labels=source.labels, min_score=source.min_score)


def _musar(source: MUSARSource) -> Examples:
    from .musar import MUSAR

    return MUSAR(source.folder, labels=source.labels)


def _music(source: MusicSource) -> Examples:
    from .music import Music

    return Music(source.folder, fewest=source.fewest, most=source.most)


OPENERS: Mapping[str, Opener] = {"uno": _uno, "musar": _musar, "music": _music}


def _texts(source: TextSource) -> ToldExamples:
    from ..told import Texts

    return Texts(source.file, source.column)


# Of what distillation learns from; folders of pictures are opened by `training.distillation.build`, with the MLLM.
TOLD_OPENERS: Mapping[str, ToldOpener] = {"texts": _texts}
