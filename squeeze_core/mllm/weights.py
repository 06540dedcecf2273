"""Safetensors files of a model folder, tensor by tensor, without a second copy in memory.

A tensor that is kept as it is gets mapped: its pages belong to the file and cost memory once. A tensor that
is cast, or goes to another device, is read in pieces straight into the result, because mapped pages of the
original would stay resident beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import SqueezeError
from ..files import read_header
from .folders import download_line, lfs_hint

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PIECE = 8 << 20  # bytes read at once; a multiple of every dtype's size


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: `start` and `end` are bytes from the beginning of the file."""

    file: Path
    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a model folder by key, from model.safetensors or the shards that the index names.

    Every file is checked to be complete. Raises SqueezeError for missing, truncated or pointer files.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in _files(folder):
        tensors.update(_read_header(file))
    return tensors


class WeightReader:
    """Reads tensors of one model. What it holds besides the results is one small buffer, used again and again:
    temporary tensors would tear holes into the heap that add up over a model.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(_PIECE)
        self._open_files: dict[Path, Any] = {}

    def mapped(self, tensor: StoredTensor) -> torch.Tensor:
        """The tensor as stored, on the CPU, its memory being the file's."""
        from safetensors import safe_open

        if tensor.file not in self._open_files:
            self._open_files[tensor.file] = safe_open(tensor.file, framework="pt", device="cpu")
        return self._open_files[tensor.file].get_tensor(tensor.key)

    def cast(self, tensor: StoredTensor, dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
        """The tensor in another dtype or on another device, read piece by piece.

        Values outside the range of float8_e4m3fn become its largest value; PyTorch would make them NaN.
        """
        result = torch.empty(tensor.shape, dtype=dtype, device=device)
        flat = result.view(-1)
        limit = torch.finfo(dtype).max if dtype == torch.float8_e4m3fn else None
        done = 0
        for piece in _pieces(tensor, self._buffer):
            if limit is not None:
                piece.clamp_(-limit, limit)
            flat[done : done + piece.numel()].copy_(piece)
            done += piece.numel()
        return result


def float32_hash(tensor: StoredTensor) -> str:
    """First 16 hex digits of the SHA-256 of the values as little-endian float32, whatever their dtype."""
    digest = hashlib.sha256()
    for piece in _pieces(tensor, bytearray(min(_PIECE, tensor.end - tensor.start))):
        digest.update(piece.to(torch.float32).numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


def _pieces(tensor: StoredTensor, buffer: bytearray) -> Iterator[torch.Tensor]:
    """Flat views of the buffer, filled with one part of the tensor after the other."""
    left = tensor.end - tensor.start
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.start)
        while left > 0:
            view = memoryview(buffer)[: min(len(buffer), left)]
            filled = 0
            while filled < len(view):
                count = file.readinto(view[filled:])
                if not count:
                    raise SqueezeError(f"{tensor.file} ended early; is it still being downloaded?")
                filled += count
            yield torch.frombuffer(view, dtype=tensor.dtype)
            left -= len(view)


def _files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise SqueezeError(
                f"{index} is not a readable index{lfs_hint(index)}. Fetch it again: {download_line(folder)}"
            ) from error
        # A name with a path in it could point outside the folder.
        missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        if missing:
            raise SqueezeError(
                f"{folder} lacks {len(missing)} of {len(names)} weight files ({', '.join(missing[:3])}). "
                f"Finish the download: {download_line(folder)}"
            )
        return [folder / name for name in names]
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise SqueezeError(
            f"{folder} holds no safetensors weights, the only kind that is read. "
            f"Fetch them: {download_line(folder)}"
        )
    return files


def _read_header(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    again = f"Fetch it again: {download_line(path.parent)}"
    try:
        header, start = read_header(path)
        header.pop("__metadata__", None)
        tensors = {key: _entry(path, key, start, value) for key, value in header.items()}
    except SqueezeError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SqueezeError(f"{path} is not a complete safetensors file{lfs_hint(path)}. {again}") from error
    needed = max((tensor.end for tensor in tensors.values()), default=0)
    if needed > size:
        raise SqueezeError(f"{path} is truncated: {size:,} of {needed:,} bytes are there. {again}")
    return tensors


def _entry(path: Path, key: str, data: int, value: dict) -> StoredTensor:
    if value["dtype"] not in _DTYPES:
        raise SqueezeError(
            f"{key} in {path} is stored as {value['dtype']}; accepted are fp32, bf16 and fp16. "
            "Choose an unquantised checkpoint."
        )
    start, end = value["data_offsets"]
    dtype, shape = _DTYPES[value["dtype"]], tuple(value["shape"])
    if end - start != torch.Size(shape).numel() * dtype.itemsize:
        raise ValueError(f"{key}: size does not fit its shape")
    return StoredTensor(path, key, dtype, shape, data + start, data + end)
