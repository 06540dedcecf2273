"""Label files: JSON lists or JSON lines of rows, found in a data set's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from ..errors import SqueezeError


def read_rows(path: Path) -> list[dict]:
    """The rows of a .json (a list) or .jsonl file. Raises `SqueezeError`."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            [json.loads(line) for line in text.splitlines() if line]
            if path.suffix == ".jsonl"
            else json.loads(text)
        )
    except (OSError, ValueError) as error:
        raise SqueezeError(f'The labels "{path}" cannot be read as JSON ({error}). Get the file again.') from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SqueezeError(f'The labels "{path}" are no list of rows. Give the label file of the data set.')
    return rows


def existing_folder(folder: str | Path, what: str) -> Path:
    """Raises `SqueezeError` when it is not there."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise SqueezeError(f'There is no folder "{folder}" for {what}. Give the folder of the data set.')
    return folder


def digest(parts: Iterable[str]) -> str:
    """16 hex digits that tell lists of texts apart."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() + b"\0")
    return total.hexdigest()[:16]
