"""DreamBench++: 150 pictures with 9 prompts each, from github.com/yuangpeng/dreambench_plus.

`images/CATEGORY/NN.jpg` belongs to `captions/CATEGORY/NN.txt`, whose first line is what the picture shows and
whose others are prompts. As in the paper, only the subject categories are read: animals and objects, no people,
no styles.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import SqueezeError
from ..cases import Benchmark, Sample, Subject, folder_name, require

SUBJECT_CATEGORIES = ("animal", "object")
SEEDS = 1
CLONE = "github.com/yuangpeng/dreambench_plus"


def read(folder: Path) -> Benchmark:
    """folder: the one that holds `images` and `captions`, or the repository. Raises `SqueezeError`."""
    folder = _data_folder(folder)
    benchmark = Benchmark("DreamBench++", [], SEEDS, source=f"{CLONE}, data")
    benchmark.notes.append("Subject categories only (animals, objects), as in the paper.")
    for captions in sorted((folder / "captions").rglob("*.txt")):
        category = captions.parent.name
        if category not in SUBJECT_CATEGORIES:
            continue
        below = captions.relative_to(folder / "captions")
        picture = folder / "images" / below.with_suffix(".jpg")
        words, prompts = parse(captions.read_text(encoding="utf-8"))
        if not words or not prompts or not picture.is_file():
            what = "has no prompts" if picture.is_file() else "has no picture"
            benchmark.notes.append(f"{below.as_posix()} {what}; it is left out.")
            continue
        name = folder_name(f"{category}_{captions.stem}_{words}").lower()
        subject = Subject(name, words, (picture,))
        benchmark.samples += [
            Sample(name, number, text, (subject,), category) for number, text in enumerate(prompts)
        ]
    require(benchmark.samples, "DreamBench++", folder)
    return benchmark


def parse(text: str) -> tuple[str, list[str]]:
    """(what the picture shows, prompts) of a caption file; empty where there is nothing."""
    lines = [" ".join(line.split()) for line in text.lstrip("\ufeff").splitlines()]
    return (lines[0], [line for line in lines[1:] if line]) if lines else ("", [])


def _data_folder(folder: Path) -> Path:
    for candidate in (folder, folder / "data", folder / "dreambench_plus" / "data"):
        if (candidate / "captions").is_dir() and (candidate / "images").is_dir():
            return candidate
    raise SqueezeError(
        f'"{folder}" holds no folders "images" and "captions". Get DreamBench++ ({CLONE}) and give its data folder.'
    )
