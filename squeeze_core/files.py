"""Files: safetensors written whole or not at all, and refused with a sentence when not sound; the cache folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from .errors import SqueezeError

if TYPE_CHECKING:
    import torch

MAX_HEADER = 100 * 2**20  # bytes, the format's own limit; a full-size adapter's header is about 0.1 MiB


def cache_folder() -> Path:
    """What may be made again: XDG_CACHE_HOME, else LOCALAPPDATA on Windows, else ~/.cache; our folder in it."""
    home = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    return Path(home or Path.home() / ".cache").expanduser() / "squeeze-mllm"


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, with its suffix; synced and renamed to it when all went well.

    So a crash leaves the old file or the new. Folders are made. Raises `OSError` where nothing can be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: libraries take the format from it. A name must not outgrow the file system's limit.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:40]}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """As `whole`, for a folder that is not there yet or is empty: a temporary folder beside it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:40]}."))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())  # mkdtemp's folders are private
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """A text file as UTF-8, whole or not at all. What UTF-8 cannot hold (names of files) is escaped."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def decoded_text(data: bytes) -> str:
    """UTF-8, or UTF-16 that begins with its mark. Raises `ValueError`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def save_atomically(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, see `whole`."""
    from safetensors.torch import save_file  # with torch, which no command needs for its --help

    # safetensors refuses tensors that share memory, and writes only contiguous ones.
    ready = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    with whole(path) as temporary:
        save_file(ready, temporary, metadata=metadata)


def read_kept(path: Path, name: str) -> torch.Tensor | None:
    """A tensor of a cache's safetensors file, on the CPU; None where there is none, or one that cannot be read."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name).clone()
    except (SafetensorError, OSError):
        return None


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


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and the byte at which its tensors begin. Raises `OSError` or `ValueError`."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(path.stat().st_size - 8, MAX_HEADER):
            raise ValueError("header length")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    return header, 8 + length


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
