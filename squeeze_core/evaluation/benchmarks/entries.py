"""What the JSON benchmarks (XVerseBench, LAMICBench) share: paths from a repository's root, no people."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import SqueezeError
from ..cases import folder_name

PEOPLE = "human"


def load(folder: Path, name: str) -> tuple[Any, Path]:
    """A JSON file anywhere below a folder, or itself, and the path it was found at. Raises `SqueezeError`."""
    path = folder if folder.is_file() else next(iter(sorted(folder.rglob(name))), None)
    if path is None:
        raise SqueezeError(f'"{folder}" holds no {name}. Give the folder of the benchmark\'s repository.')
    try:
        return json.loads(path.read_text(encoding="utf-8")), path
    except (OSError, ValueError, RecursionError) as error:
        raise SqueezeError(f'"{path}" is not readable JSON ({error}). Get the file again.') from error


def picture(list_file: Path, named: str) -> Path | None:
    """A picture that a list names relative to its repository's root, wherever that is above the list."""
    parts = PurePosixPath(named.removeprefix("./"))
    if parts.is_absolute() or ".." in parts.parts:
        return None
    return next((root / parts for root in list_file.resolve().parents if os.path.isfile(root / parts)), None)


def is_person(named: str) -> bool:
    """Both benchmarks keep people in a folder of that name."""
    return PEOPLE in PurePosixPath(named).parts[:-1]


def name_of(named: str) -> str:
    """`assets/XVerseBench/animal/13_polar bear.jpg` -> `animal_13_polar_bear`."""
    path = PurePosixPath(named)
    return folder_name(f"{path.parent.name}_{path.stem}").lower()


def words_of(text: str) -> str:
    """What a detector looks for: without article."""
    return re.sub(r"^(an?|the)\s+", "", " ".join(text.split()), flags=re.IGNORECASE)
