"""UNO-1M: pairs of synthetic pictures of one subject, scored by a VLM for how well the subject is kept.

Reference = picture 1, target = picture 2, prompt = the caption of picture 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import SqueezeError
from .examples import Example
from .labels import digest, existing_folder, read_rows
from .pictures import read_rgb

MAX_SCORE = 4.0  # scores run from 0 to 4; what lies above was misread by the VLM's parser (one is 131184.67)


@dataclass(frozen=True)
class _Pair:
    reference: str
    target: str
    prompt: str


class UNO:
    """UNO-1M from a folder.

    folder: holds images/split1/... and the labels: labels/split*.json, or uno_1m_total_labels.json (a gigabyte,
        read at once), or what `labels` names in it. Splits that were not extracted are left out.
    min_score: of `score_final`; 4 keeps 404,259 of the 1,011,093 pairs.
    dropped_score, incomplete, not_extracted: numbers of rows left out, and why.
    """

    def __init__(self, folder: str | Path, *, labels: str | None = None, min_score: float = 4.0) -> None:
        self.folder = existing_folder(folder, "UNO-1M")
        self.images = self.folder / "images" if (self.folder / "images").is_dir() else self.folder
        self.min_score = min_score
        self.dropped_score = self.incomplete = self.not_extracted = 0
        self._extracted: dict[Path, bool] = {}
        self._pairs: list[_Pair] = []
        for path in self._label_files(labels):
            for row in read_rows(path):
                self._add(row)
        self._identity = digest(f"{pair.reference}|{pair.target}|{pair.prompt}" for pair in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> Example:
        pair = self._pairs[number]
        reference, target = read_rgb(self.images / pair.reference), read_rgb(self.images / pair.target)
        return Example(pair.prompt, target, (reference,), pair.target)

    def identity(self) -> str:
        return f"UNO-1M of {len(self)} pairs ({self._identity})"

    def _label_files(self, labels: str | None) -> list[Path]:
        if labels is not None:
            return [self.folder / labels]
        splits = sorted((self.folder / "labels").glob("split*.json"), key=lambda path: (len(path.name), path.name))
        whole = self.folder / "uno_1m_total_labels.json"
        if not splits and not whole.is_file():
            raise SqueezeError(
                f'"{self.folder}" holds neither labels/split*.json nor uno_1m_total_labels.json. '
                "Give the folder into which UNO-1M was extracted, or name the labels."
            )
        return splits or [whole]

    def _add(self, row: dict) -> None:
        caption, score = row.get("caption"), row.get("vlm_filter_cot")
        final = score.get("score_final") if isinstance(score, dict) else None
        if not isinstance(final, (int, float)) or not self.min_score <= final <= MAX_SCORE:
            self.dropped_score += 1
            return
        prompt = caption.get("img_path2") if isinstance(caption, dict) else None
        reference, target, prompt = (
            value.strip() if isinstance(value, str) else ""
            for value in (row.get("img_path1"), row.get("img_path2"), prompt)
        )
        if not (reference and target and prompt):
            self.incomplete += 1
        elif not all(self._is_extracted(self.images / name) for name in (reference, target)):
            self.not_extracted += 1
        else:
            self._pairs.append(_Pair(reference, target, prompt))

    def _is_extracted(self, picture: Path) -> bool:
        """Whether the folder of a picture is there; the picture itself is looked at when it is read."""
        split = picture.parent
        if split not in self._extracted:
            self._extracted[split] = split.is_dir()
        return self._extracted[split]
