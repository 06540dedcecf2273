"""Small pictures on the disk, in the layouts of the data sets."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def picture(path: Path, colour=(200, 30, 30), size=(48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def uno_row(number: int, score: object = 4.0, split: str = "split1") -> dict:
    return {
        "img_path1": f"{split}/{number}_1.png",
        "img_path2": f"{split}/{number}_2.png",
        "caption": {
            "img_path1": f"first {number}",
            "img_path2": f"second {number}",
            "judgment": "same",
            "subject": [],
        },
        "vlm_filter_cot": {"score_part": {"Shape": score}, "score_final": score},
    }


def uno(folder: Path, rows: list[dict], *, by_split: bool = False) -> Path:
    """Reference red, target green, its brightness the number of the row."""
    for number, row in enumerate(rows):
        if "img_path1" in row:
            picture(folder / "images" / row["img_path1"], (200, number, 0))
            picture(folder / "images" / row["img_path2"], (0, 200, number))
    if by_split:
        (folder / "labels").mkdir()
        for split in {row["img_path1"].partition("/")[0] for row in rows}:
            chosen = [row for row in rows if row["img_path1"].startswith(f"{split}/")]
            (folder / "labels" / f"{split}.json").write_text(json.dumps(chosen))
    else:
        (folder / "uno_1m_total_labels.json").write_text(json.dumps(rows))
    return folder
