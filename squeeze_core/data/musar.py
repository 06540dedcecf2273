"""MUSAR-Gen: two subjects, each on a picture of its own, and a picture of both (appendix F)."""

from __future__ import annotations

from pathlib import Path

from ..errors import SqueezeError
from .examples import Example
from .labels import digest, existing_folder, read_rows
from .pictures import read_rgb

_REFERENCES = ("cond_img_0", "cond_img_1")


class MUSAR:
    """MUSAR-Gen from a folder.

    folder: holds the pictures, and rows of cond_img_0, cond_img_1, tgt_img and prompt, their paths relative to
        the folder. labels: the file of rows, .json or .jsonl; None takes the only one there is.
    """

    def __init__(self, folder: str | Path, *, labels: str | None = None) -> None:
        self.folder = existing_folder(folder, "MUSAR-Gen")
        self.incomplete = 0
        self._rows: list[tuple[str, str, str, str]] = []
        for row in read_rows(self._label_file(labels)):
            values = [row.get(name) for name in (*_REFERENCES, "tgt_img", "prompt")]
            if all(isinstance(value, str) and value.strip() for value in values):
                self._rows.append(tuple(values))  # type: ignore[arg-type]
            else:
                self.incomplete += 1
        self._identity = digest("|".join(row) for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Example:
        first, second, target, prompt = self._rows[number]
        references = (read_rgb(self.folder / first), read_rgb(self.folder / second))
        return Example(prompt.strip(), read_rgb(self.folder / target), references, target)

    def identity(self) -> str:
        return f"MUSAR-Gen of {len(self)} examples ({self._identity})"

    def _label_file(self, labels: str | None) -> Path:
        if labels is not None:
            return self.folder / labels
        found = [path for path in sorted(self.folder.iterdir()) if path.suffix in (".json", ".jsonl")]
        if len(found) != 1:
            names = ", ".join(path.name for path in found) or "none"
            raise SqueezeError(
                f'"{self.folder}" must hold one .json or .jsonl of rows; there is {names}. Name it as labels.'
            )
        return found[0]
