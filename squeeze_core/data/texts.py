"""Texts to train from: a file with one prompt a line, or a column of JSON lines or of a Parquet table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import SqueezeError
from ..files import decoded_text

LONGEST = 4000  # characters; T5 hears 512 tokens, about 2,000 of them


def read_texts(path: str | Path, column: str = "text") -> list[str]:
    """The texts of a .txt, .jsonl or .parquet file, in order, without blank ones.

    column: of JSON lines and Parquet. UTF-8, or UTF-16 with its byte order mark. Raises `SqueezeError` for a file
    that is empty, binary or of another kind, and names the line of a text that is too long or no text.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise SqueezeError(f'There is no file of texts "{path}". Check the name and the folder.')
    if path.suffix == ".parquet":
        found = list(_parquet(path, column))
    elif path.suffix == ".jsonl":
        found = [(number, _of(row, column, path, number)) for number, row in _rows(path)]
    elif path.suffix in (".txt", ""):
        found = list(enumerate(read_lines(path), start=1))
    else:
        raise SqueezeError(f'"{path.name}" is no file of texts that is read. Give .txt, .jsonl or .parquet.')
    texts = [(number, text.strip()) for number, text in found]
    for number, text in texts:
        if len(text) > LONGEST:
            raise SqueezeError(
                f'Line {number} of "{path.name}" has {len(text):,} characters; a text may have {LONGEST:,}. '
                "Cut it, or leave it out: is the file one prompt a line?"
            )
    kept = [text for _, text in texts if text]
    if not kept:
        raise SqueezeError(f'"{path.name}" holds no text. Give a file with one prompt a line.')
    return kept


def _decoded(path: Path) -> str:
    try:
        text = decoded_text(path.read_bytes())
    except ValueError as error:
        raise SqueezeError(
            f'"{path.name}" is no text in UTF-8 ({error}). Save it as UTF-8; a binary file is no list of prompts.'
        ) from error
    if "\0" in text:
        raise SqueezeError(f'"{path.name}" is a binary file and no list of prompts. Give .txt, .jsonl or .parquet.')
    return text


def read_lines(path: Path) -> list[str]:
    """Of UTF-8, or UTF-16 with its byte order mark; a line separator inside a text ends no line. Raises
    `SqueezeError` for a binary file."""
    return [line.rstrip("\r") for line in _decoded(path).split("\n")]


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise SqueezeError(
                f'Line {number} of "{path.name}" is no JSON ({error}). Mend it, or cut it off.'
            ) from error


def _of(row: Any, column: str, path: Path, number: int) -> str:
    value = row.get(column) if isinstance(row, dict) else None
    if not isinstance(value, str):
        known = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise SqueezeError(f'Line {number} of "{path.name}" has no text "{column}" (it has {known}). Set column.')
    return value.encode("utf-8", "replace").decode("utf-8")  # half an emoji becomes a question mark


def _parquet(path: Path, column: str) -> Iterator[tuple[int, str]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SqueezeError(
            f'"{path.name}" needs pyarrow: pip install pyarrow. Or give the texts as .txt or .jsonl.'
        ) from error
    try:
        table = parquet.ParquetFile(path)
        if column not in table.schema_arrow.names:
            known = ", ".join(table.schema_arrow.names)
            raise SqueezeError(f'"{path.name}" has no column "{column}"; it has {known}. Set column.')
        values = table.read(columns=[column]).column(column).to_pylist()
    except (OSError, ValueError) as error:
        raise SqueezeError(f'"{path.name}" cannot be read as Parquet ({error}). Get the file again.') from error
    for number, value in enumerate(values, start=1):
        if value is not None:
            yield number, _of({column: value}, column, path, number)
