"""Label files: JSON lists or JSON lines of rows, found in a data set's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from ..errors import SqueezeError
from .store import Store


def read_rows(store: Store, name: str) -> list[dict]:
    """The rows of a .json (a list) or .jsonl file. Raises `SqueezeError`."""
    path = store.where(name)
    try:
        text = store.read(name).decode("utf-8")
        rows = (
            [json.loads(line) for line in text.splitlines() if line]
            if name.endswith(".jsonl")
            else json.loads(text)
        )
    except (OSError, ValueError) as error:
        raise SqueezeError(f'The labels "{path}" cannot be read as JSON ({error}). Get the file again.') from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SqueezeError(f'The labels "{path}" are no list of rows. Give the label file of the data set.')
    return rows


def digest(parts: Iterable[str]) -> str:
    """16 hex digits that tell lists of texts apart."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode() + b"\0")
    return total.hexdigest()[:16]
