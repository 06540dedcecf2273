"""Files -> unit vectors, through the cache: pictures are read and encoded only when no run has done so before."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from ..files import file_hash
from ..vision.backbones import Clip
from ..vision.batches import Progress, in_batches
from ..vision.registry import BackboneSpec
from . import pictures
from .cache import Cache
from .pictures import Problem

if TYPE_CHECKING:
    from PIL.Image import Image

_STATE = "state-1"  # of picture files in the cache


class PictureEncoder(Protocol):
    """`Dino` and `Clip`, or anything that gives unit vectors and says exactly what it is."""

    spec: BackboneSpec

    def encode(self, pictures: Sequence[Image]) -> torch.Tensor: ...


@dataclass
class Files:
    """Picture files of a run, and what is wrong with them.

    names: how reports call a file; its own name where nothing is said. problems: by file, as far as known.
    cache: remembers by the file's hash what was wrong, so that a second run opens no picture.
    """

    names: Mapping[Path, str] = field(default_factory=dict)
    problems: dict[Path, list[Problem]] = field(default_factory=dict)
    hashes: dict[Path, str] = field(default_factory=dict)
    cache: Cache | None = None

    def read(self, path: Path) -> Image | None:
        """RGB, or None when the file cannot be scored; `problems` then says why."""
        name = self.names.get(path, path.name)
        picture, found = pictures.read(path, name)
        if path not in self.problems and self.cache is not None:
            told = json.dumps([asdict(problem) for problem in found]).encode()
            self.cache.put(_STATE, self.hash(path), value=np.frombuffer(told, dtype=np.uint8))
        self.problems[path] = found
        return picture

    def is_usable(self, path: Path) -> bool:
        """Whether it can be scored. Opens the file unless this is known."""
        if path not in self.problems:
            kept = self.cache.get(_STATE, self.hash(path)) if self.cache is not None else None
            if kept is None:
                self.read(path)
            else:
                found = [Problem(**problem) for problem in json.loads(kept.tobytes())]
                name = self.names.get(path, path.name)
                self.problems[path] = [replace(problem, file=name) for problem in found]
        return all(problem.scored for problem in self.problems[path])

    def usable(self, paths: Sequence[Path]) -> list[Path]:
        """Those that can be scored, each once, in their order."""
        return [path for path in dict.fromkeys(paths) if self.is_usable(path)]

    def hash(self, path: Path) -> str:
        """sha256 of the contents; of nothing that lasts for a file that cannot be opened."""
        if path not in self.hashes:
            try:
                self.hashes[path] = file_hash(path)
            except OSError:
                self.hashes[path] = f"unreadable {path} {time.time_ns()}"
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
    for path in dict.fromkeys(paths):
        kept = cache.get(key, files.hash(path))
        if kept is None:
            todo.append(path)
        elif files.is_usable(path):
            vectors[path] = torch.from_numpy(np.array(kept))

    def work(batch: Sequence[Path]) -> list[torch.Tensor | None]:
        loaded = {path: picture for path in batch if (picture := files.read(path)) is not None}
        encoded = dict(zip(loaded, encoder.encode(list(loaded.values())))) if loaded else {}
        for path, vector in encoded.items():
            cache.put(key, files.hash(path), value=vector.numpy())
        return [encoded.get(path) for path in batch]

    what = f"{encoder.spec.role} reads pictures"
    for path, vector in zip(todo, in_batches(todo, work, what=what, progress=progress)):
        if vector is not None:
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
