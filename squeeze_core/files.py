"""Files: safetensors written whole or not at all, and refused with a sentence when not sound; the cache folder."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from .errors import SqueezeError

MAX_HEADER = 32 * 2**20  # bytes; a full-size adapter's header is about 0.1 MiB


def cache_folder() -> Path:
    """What may be made again: XDG_CACHE_HOME, else LOCALAPPDATA on Windows, else ~/.cache; our folder in it."""
    home = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    return Path(home or Path.home() / ".cache").expanduser() / "squeeze-mllm"


def save_atomically(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write to a temporary file beside `path`, sync it, then rename: a crash leaves the old file or the new."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory, and writes only contiguous ones.
    ready = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    try:
        save_file(ready, temporary, metadata=metadata)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that nothing more can be written."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, SafetensorError) and "os error 28" in str(error)


def checked_header(path: Path, what: str) -> None:
    """Refuse what is no safetensors file before a library maps it. Raises `SqueezeError`.

    what: what the file should be, for the message: "adapter", "saved conditioning".
    """
    if not path.is_file():
        raise SqueezeError(f'There is no {what} at "{path}". Check the name and the folder.')
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
    if start == b"version ":
        raise SqueezeError(f'"{path.name}" is a git-lfs pointer, not the file itself. Run "git lfs pull".')
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
    if length is None or length > size - 8:
        claim = "" if length is None else f" and its header claims {length}"
        raise SqueezeError(
            f'"{path.name}" is truncated or no safetensors file: it has {size} bytes{claim}. Get the file again.'
        )
    if length > MAX_HEADER:
        raise SqueezeError(
            f'"{path.name}" has a header of {length} bytes; at most {MAX_HEADER} are accepted. '
            f"This is no {what} that Squeeze wrote."
        )


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sha256(file) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
