"""The names that scenes are made of: those of Objects365, or a file with a name a line."""

from __future__ import annotations

from pathlib import Path

from ..texts import read_texts

OBJECTS365 = Path(__file__).parent / "objects365.txt"


def categories(given: str) -> list[str]:
    """Lower case; of names such as "Cabinet/shelf" the first word is taken. Raises `SqueezeError`."""
    path = OBJECTS365 if given == "objects365" else Path(given)
    names = [name.partition("/")[0].strip().lower() for name in read_texts(path)]
    return list(dict.fromkeys(name for name in names if name))
