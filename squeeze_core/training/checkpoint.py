"""Checkpoints: folders that are there whole or not at all.

A checkpoint is written to a hidden folder, synced to the disk, then renamed; whatever kills the process at
any moment leaves the ones before it as they were.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import SqueezeError

_NAME = re.compile(r"step_(\d{8,})")
_STATE = "state.json"

Tensors = Mapping[str, torch.Tensor]


class Checkpoints:
    """The checkpoints of a run, the newest `keep` of them."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def latest(self) -> Path | None:
        """The newest one, or None."""
        return max(self._all(), key=_step, default=None)

    def write(self, step: int, groups: Mapping[str, Tensors], state: Mapping) -> Path:
        """Save the checkpoint of a step and delete those too many.

        groups: tensors on the CPU by file, such as {"weights": {...}}; empty ones get no file. state: what
        else is to be known, JSON only. Raises OSError, among others for a full disk.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".{final.name}.{uuid.uuid4().hex}"
        try:
            temporary.mkdir()
            for name, tensors in groups.items():
                if tensors:
                    _write_tensors(temporary / f"{name}.safetensors", tensors)
            with open(temporary / _STATE, "w", encoding="utf-8") as file:
                json.dump({"step": step, **state}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            _sync_folder(temporary)
            if final.exists():  # saved twice at the same step: what is there is the same
                _discard(final)
            os.rename(temporary, final)
            _sync_folder(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in sorted(self._all(), key=_step)[: -self.keep]:
            _discard(old)
        return final

    def clear_leftovers(self) -> None:
        """Remove what a killed process was still writing or deleting."""
        if self.folder.is_dir():
            for path in self.folder.glob(".step_*"):
                shutil.rmtree(path, ignore_errors=True)

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and (path / _STATE).is_file()]


def read_state(checkpoint: Path) -> dict:
    """What `Checkpoints.write` was given as state, with the step. Raises `SqueezeError`."""
    try:
        return json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(checkpoint, error) from error


def read_tensors(checkpoint: Path, group: str) -> dict[str, torch.Tensor]:
    """The tensors of one group, on the CPU; none when there is no such group. Raises `SqueezeError`."""
    path = checkpoint / f"{group}.safetensors"
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(checkpoint, error) from error


def _write_tensors(path: Path, tensors: Tensors) -> None:
    # safetensors refuses tensors that share memory, and writes only contiguous ones.
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder last through a power cut; Windows has no such thing."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(folder: Path) -> None:
    """Hidden first, so that a half-deleted checkpoint is never taken for a whole one."""
    aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _step(checkpoint: Path) -> int:
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def _damaged(checkpoint: Path, error: Exception) -> SqueezeError:
    return SqueezeError(
        f'The checkpoint "{checkpoint}" cannot be read ({error}). Delete its folder to go on from the one before.'
    )
