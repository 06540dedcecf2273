"""MUSAR-Gen: two subjects, each on a picture of its own, and a picture of both (appendix F)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...errors import SqueezeError
from ..examples import Example
from ..labels import digest, place_of, read_rows
from ..pictures import decoded
from ..store import Store

_REFERENCES = ("cond_img_0", "cond_img_1")


class MUSAR:
    """MUSAR-Gen from a folder, or streamed.

    folder: or an address (see `store.Store`); holds the pictures, or archives of them, and rows of cond_img_0,
        cond_img_1, tgt_img and prompt, their paths relative to the folder.
    labels: the file of rows, .json or .jsonl; None takes the only one there is.
    """

    def __init__(self, folder: str | Path, *, labels: str | None = None) -> None:
        self.store = Store(folder, "MUSAR-Gen")
        self.incomplete = 0
        self._rows: list[tuple[str, str, str, str]] = []
        for row in read_rows(self.store, self._label_file(labels)):
            values = [row.get(name) for name in (*_REFERENCES, "tgt_img", "prompt")]
            if all(isinstance(value, str) and value.strip() for value in values):
                *pictures, prompt = (str(value) for value in values)
                first, second, target = (place_of(self.store, name) for name in pictures)
                self._rows.append((first, second, target, prompt))
            else:
                self.incomplete += 1
        self._identity = digest("|".join(row) for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Example:
        first, second, target, prompt = self._rows[number]
        pictures = [
            decoded(partial(self.store.read, name), self.store.where(name)) for name in (first, second, target)
        ]
        return Example(prompt.strip(), pictures[2], (pictures[0], pictures[1]), target)

    def identity(self) -> str:
        return f"MUSAR-Gen of {len(self)} examples ({self._identity})"

    def _label_file(self, labels: str | None) -> str:
        if labels is not None:
            return labels
        found = [
            name
            for name, kind in sorted(self.store.names().items())
            if kind == "file" and name.endswith((".json", ".jsonl"))
        ]
        if len(found) != 1:
            raise SqueezeError(
                f'"{self.store.location}" must hold one .json or .jsonl of rows; there is '
                f"{', '.join(found) or 'none'}. Name it as labels."
            )
        return found[0]
