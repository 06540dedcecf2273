"""UNO-1M: pairs of synthetic pictures of one subject, scored by a VLM for how well the subject is kept.

Reference = picture 1, target = picture 2, prompt = the caption of picture 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...errors import SqueezeError
from ..examples import Example
from ..labels import digest, place_of, read_rows
from ..pictures import decoded
from ..store import Store

MAX_SCORE = 4.0  # scores run from 0 to 4; what lies above was misread by the VLM's parser (one is 131184.67)


@dataclass(frozen=True)
class _Pair:
    reference: str
    target: str
    prompt: str


class UNO:
    """UNO-1M from a folder, or streamed.

    folder: or an address (see `store.Store`); holds images/split1/..., or archives of the splits, and the
        labels: labels/split*.json, or uno_1m_total_labels.json (a gigabyte, read at once), or what `labels`
        names in it. Splits that are not there are left out.
    min_score: of `score_final`; 4 keeps 404,259 of the 1,011,093 pairs.
    dropped_score, incomplete, not_there: numbers of rows left out, and why.
    """

    def __init__(self, folder: str | Path, *, labels: str | None = None, min_score: float = 4.0) -> None:
        self.store = Store(folder, "UNO-1M")
        self.images = "images/" if self.store.has_folder("images") else ""
        self.min_score = min_score
        self.dropped_score = self.incomplete = self.not_there = 0
        self._there: dict[str, bool] = {}
        self._pairs: list[_Pair] = []
        for name in self._label_files(labels):
            for row in read_rows(self.store, name):
                self._add(row)
        self._identity = digest(f"{pair.reference}|{pair.target}|{pair.prompt}" for pair in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> Example:
        pair = self._pairs[number]
        reference, target = (
            decoded(partial(self.store.read, self.images + name), self.store.where(self.images + name))
            for name in (pair.reference, pair.target)
        )
        return Example(pair.prompt, target, (reference,), pair.target)

    def identity(self) -> str:
        return f"UNO-1M of {len(self)} pairs ({self._identity})"

    def _label_files(self, labels: str | None) -> list[str]:
        if labels is not None:
            return [labels]
        found = [name for name in self.store.names("labels") if name.startswith("split") and name.endswith(".json")]
        splits = [f"labels/{name}" for name in sorted(found, key=lambda name: (len(name), name))]
        whole = "uno_1m_total_labels.json"
        if not splits and not self.store.has(whole):
            raise SqueezeError(
                f'"{self.store.location}" holds neither labels/split*.json nor {whole}. '
                "Give the place where UNO-1M lies, or name the labels."
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
        reference, target = (self._picture(name) for name in (reference, target))
        if not (reference and target and prompt):
            self.incomplete += 1
        elif not all(self._is_there(self.images + name) for name in (reference, target)):
            self.not_there += 1
        else:
            self._pairs.append(_Pair(reference, target, prompt))

    def _picture(self, name: str) -> str:
        """Below the folder of pictures."""
        return place_of(self.store, name).removeprefix(self.images) if name else ""

    def _is_there(self, picture: str) -> bool:
        """Whether the split of a picture is there; the picture itself is looked at when it is read."""
        split = picture.rpartition("/")[0]
        if split not in self._there:
            self._there[split] = not split or self.store.has_folder(split)
        return self._there[split]
