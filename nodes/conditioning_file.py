"""An encoded prompt on disk: encode once, sample elsewhere without the MLLM.

ComfyUI's CONDITIONING is a list of [tokens, options]; here it becomes one safetensors: every tensor under a
number, and the rest as JSON in the header, where a tensor is {"tensor": number}. Numbers, texts, lists, tuples,
dictionaries and tensors can be kept; anything else (a ControlNet, hooks) is refused by name.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.files import checked_header, save_atomically
from .attention import from_file, to_save

SUFFIX = ".cond.safetensors"
HEADER_KEY = "squeeze_conditioning"
FORMAT = 1


def save(path: str | Path, conditioning: list) -> None:
    """Write a conditioning atomically. Raises `SqueezeError` naming what cannot be kept."""
    tensors: dict[str, torch.Tensor] = {}
    entries = [
        {"tokens": _packed(tokens, tensors, "the tokens"), "options": _options(to_save(options), tensors)}
        for tokens, options in conditioning
    ]
    header = json.dumps({"format": FORMAT, "entries": entries}, allow_nan=False)
    save_atomically(path, tensors, {HEADER_KEY: header})


def load(path: str | Path) -> list:
    """Read a conditioning. Raises `SqueezeError` for anything that `save` did not write."""
    path = Path(path)
    checked_header(path, "saved conditioning")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a mapping
    except SafetensorError as error:
        raise SqueezeError(f'"{path.name}" cannot be read as safetensors ({error}). Save it again.') from error
    try:
        content = json.loads(header or "null")
        if content["format"] != FORMAT:
            raise SqueezeError(
                f'"{path.name}" has format {content["format"]} and this version reads format '
                f"{FORMAT}. Save it again."
            )
        return [
            [_unpacked(entry["tokens"], tensors), from_file(_unpacked(entry["options"], tensors))]
            for entry in content["entries"]
        ]
    except (TypeError, KeyError, json.JSONDecodeError) as error:
        raise SqueezeError(f'"{path.name}" is no conditioning that Squeeze saved. Choose another file.') from error


def _options(options: dict, tensors: dict[str, torch.Tensor]) -> dict:
    return {"dict": {name: _packed(value, tensors, f'"{name}"') for name, value in options.items()}}


def _packed(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    if isinstance(value, torch.Tensor):
        number = str(len(tensors))
        tensors[number] = value
        return {"tensor": number}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(item, tensors, name) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _packed(item, tensors, f'{name}, "{key}"') for key, item in value.items()}}
    raise SqueezeError(
        f"This conditioning holds {name}, a {type(value).__name__}, which cannot be saved. "
        "Save it before that is applied, and apply it again after loading."
    )


def _unpacked(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "float":
        return float(content)
    if kind == "dict":
        return {key: _unpacked(item, tensors) for key, item in content.items()}
    items = [_unpacked(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
