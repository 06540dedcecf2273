"""Label files: JSON lists or JSON lines of rows, found in a data set's folder."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable

from ..errors import SqueezeError
from ..files import decoded_text
from .store import Store


def read_rows(store: Store, name: str) -> list[dict]:
    """The rows of a .json (a list) or .jsonl file. Raises `SqueezeError`."""
    path = store.where(name)
    try:
        text = decoded_text(store.read(name))
        rows = _lines(text, path) if name.endswith(".jsonl") else json.loads(text)
    except (OSError, ValueError) as error:
        raise SqueezeError(f'The labels "{path}" cannot be read as JSON ({error}). Get the file again.') from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SqueezeError(f'The labels "{path}" are no list of rows. Give the label file of the data set.')
    return rows


def place_of(store: Store, name: str) -> str:
    """A picture's name in the data set, of what a label file says: other separators, or an absolute path."""
    name = name.strip().replace("\\", "/")
    root = store.location.replace("\\", "/").rstrip("/") + "/"
    if name.startswith(root):
        return name[len(root) :]
    if not (name.startswith("/") or name[1:3] == ":/"):
        return name.removeprefix("./")
    parts = [part for part in name.split("/") if part and not part.endswith(":")]
    # Of another machine: from the first folder on that is here too.
    here = next((first for first, part in enumerate(parts) if store.holds(part)), 0)
    return "/".join(parts[here:])


def _lines(text: str, path: str) -> list:
    """The rows of JSON lines. A line ends at \\n alone: captions hold other ends. A last one may be cut off."""
    lines = [line for line in text.split("\n") if line.strip()]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) or number == 1:
                raise ValueError(f"line {number}: {error}") from error
            left = f'the last line of "{path}" is cut off and left out; {len(rows)} rows are used'
            print(f"squeeze: {left}", file=sys.stderr)
    return rows


def digest(parts: Iterable[str]) -> str:
    """16 hex digits that tell lists of texts apart."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode(errors="surrogatepass") + b"\0")
    return total.hexdigest()[:16]
