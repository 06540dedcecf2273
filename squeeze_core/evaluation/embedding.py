"""Files -> unit vectors, through the cache: pictures are read and encoded only when no run has done so before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from . import pictures
from .backbones import Clip
from .batches import Progress, in_batches
from .cache import Cache
from .pictures import Problem
from .weights import BackboneSpec

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureEncoder(Protocol):
    """`Dino` and `Clip`, or anything that gives unit vectors and says exactly what it is."""

    spec: BackboneSpec

    def encode(self, pictures: Sequence[Image]) -> torch.Tensor: ...


@dataclass
class Files:
    """Picture files of a run: each is read at most once to learn what is wrong with it.

    names: how reports call a file; its own name where nothing is said. problems: by file, once it was read.
    """

    names: Mapping[Path, str] = field(default_factory=dict)
    problems: dict[Path, list[Problem]] = field(default_factory=dict)
    hashes: dict[Path, str] = field(default_factory=dict)
    _unusable: set[Path] = field(default_factory=set)

    def read(self, path: Path) -> Image | None:
        """RGB, or None when the file cannot be scored; `problems` then says why."""
        picture, found = pictures.read(path, self.names.get(path, path.name))
        self.problems[path] = found
        if picture is None:
            self._unusable.add(path)
        return picture

    def usable(self, paths: Sequence[Path]) -> list[Path]:
        """Those that can be scored, each once, in their order. Reads every file whose state is not known."""
        for path in paths:
            if path not in self.problems:
                self.read(path)
        return [path for path in dict.fromkeys(paths) if path not in self._unusable]

    def hash(self, path: Path) -> str:
        if path not in self.hashes:
            self.hashes[path] = pictures.file_hash(path)
        return self.hashes[path]

    def all_problems(self) -> list[Problem]:
        return [problem for found in self.problems.values() for problem in found]


def embed(
    encoder: PictureEncoder, paths: Sequence[Path], files: Files, cache: Cache, progress: Progress | None = None
) -> dict[Path, torch.Tensor]:
    """The vector of every file that can be read: [width], float32. Others are in `files.problems`."""
    key = encoder.spec.key
    vectors: dict[Path, torch.Tensor] = {}
    todo: list[Path] = []
    for path in files.usable(paths):
        kept = cache.get(key, files.hash(path))
        if kept is None:
            todo.append(path)
        else:
            vectors[path] = torch.from_numpy(np.asarray(kept))

    def work(batch: Sequence[Path]) -> list[torch.Tensor]:
        loaded = [files.read(path) for path in batch]
        encoded = encoder.encode([picture for picture in loaded if picture is not None])
        for path, vector in zip(batch, encoded):
            cache.put(key, files.hash(path), value=vector.numpy())
        return list(encoded)

    what = f"{encoder.spec.role} reads pictures"
    for path, vector in zip(todo, in_batches(todo, work, what=what, progress=progress)):
        vectors[path] = vector
    return vectors


def embed_texts(
    clip: Clip, texts: Sequence[str], cache: Cache, progress: Progress | None = None
) -> dict[str, torch.Tensor]:
    """The vector of every distinct prompt: [width], float32."""
    key = f"{clip.spec.key}-text"
    kept = {text: cache.get(key, text) for text in dict.fromkeys(texts)}
    todo = [text for text, vector in kept.items() if vector is None]
    encoded = in_batches(
        todo, lambda batch: list(clip.encode_texts(batch)), what="clip reads prompts", progress=progress
    )
    vectors = {text: torch.from_numpy(vector) for text, vector in kept.items() if vector is not None}
    for text, vector in zip(todo, encoded):
        cache.put(key, text, value=vector.numpy())
        vectors[text] = vector
    return vectors
