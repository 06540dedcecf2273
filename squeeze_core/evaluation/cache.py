"""Results of a backbone on a file, kept by the file's hash and the backbone's: a second run computes nothing.

One small .npy file each, written whole, so that several processes may share a folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..files import cache_folder, whole


class Cache:
    """folder: None keeps everything in memory, for this run only."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._kept: dict[tuple[str, str], np.ndarray] = {}

    def get(self, backbone: str, *key: str) -> np.ndarray | None:
        """None when it is not there; a damaged file counts as not there."""
        name = _name(key)
        if (backbone, name) in self._kept:
            return self._kept[backbone, name]
        if self.folder is None:
            return None
        try:
            value = np.load(self._path(backbone, name), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        self._kept[backbone, name] = value
        return value

    def put(self, backbone: str, *key: str, value: np.ndarray) -> None:
        name = _name(key)
        self._kept[backbone, name] = value
        if self.folder is None:
            return
        with whole(self._path(backbone, name)) as temporary:
            np.save(temporary, value, allow_pickle=False)

    def _path(self, backbone: str, name: str) -> Path:
        assert self.folder is not None
        return self.folder / backbone / name[:2] / f"{name}.npy"


def default_folder() -> Path:
    """In the user's cache folder."""
    return cache_folder() / "evaluation"


def _name(key: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(key).encode(errors="surrogatepass")).hexdigest()
