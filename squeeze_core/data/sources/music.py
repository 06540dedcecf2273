"""What `squeeze data build` makes: several subjects, each with a reference, a picture of all, and its plan."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import SqueezeError
from ..examples import Example
from ..labels import digest, read_rows
from ..pictures import decoded
from ..store import Store

SAMPLES = "samples.jsonl"


class Music:
    """From the folder of a build. fewest, most: subjects of a sample. Raises `SqueezeError`."""

    def __init__(self, folder: str | Path, *, fewest: int = 2, most: int = 12) -> None:
        self.store = Store(folder, "a MUSIC data set")
        rows = read_rows(self.store, SAMPLES)
        self._rows = [row for row in rows if _is_sound(row) and fewest <= len(row["references"]) <= most]
        if not self._rows:
            raise SqueezeError(
                f'"{self.store.where(SAMPLES)}" has no sample of {fewest} to {most} subjects in {len(rows)} rows. '
                "Build it to its end (squeeze data build), or ask for others."
            )
        self._identity = digest(json.dumps(row, sort_keys=True) for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Example:
        row = self._rows[number]
        target, *references = (
            decoded(partial(self.store.read, name), self.store.where(name))
            for name in (row["target"], *row["references"])
        )
        return Example(row["prompt"], target, tuple(references), row["id"], row["plan"])

    def identity(self) -> str:
        return f"MUSIC of {len(self)} examples ({self._identity})"


def _is_sound(row: dict[str, Any]) -> bool:
    texts = all(isinstance(row.get(name), str) and row[name] for name in ("id", "prompt", "target"))
    references = row.get("references")
    return texts and isinstance(references, list) and all(isinstance(name, str) for name in references)
