"""LAMICBench, two references, from github.com/Suchenl/LAMIC: dataset/structured_inputs/Two-Reference.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ..cases import Benchmark, Sample, Subject, require
from ..pictures import Problem
from .entries import is_person, load, name_of, picture, words_of

LIST = "Two-Reference.json"
SEEDS = 1


def read(folder: Path) -> Benchmark:
    """folder: the repository, or the list itself. Cases with a person are left out. Raises `SqueezeError`."""
    entries, path = load(folder, LIST)
    benchmark = Benchmark("LAMICBench (two-subject)", [], SEEDS, source=f"github.com/Suchenl/LAMIC, {path.name}")
    benchmark.notes.append("Cases without people only, as in the paper.")
    numbers: Counter[str] = Counter()
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        subjects = _subjects(name, entry, path, benchmark)
        if not subjects:
            continue
        group = "__".join(subject.name for subject in subjects)
        text = " ".join(str(entry["prompt"]).split())
        benchmark.samples.append(Sample(group, numbers[group], text, tuple(subjects), "subject"))
        numbers[group] += 1
    require(benchmark.samples, "LAMICBench", path, benchmark.problems)
    return benchmark


def _subjects(name: str, entry: Any, path: Path, benchmark: Benchmark) -> list[Subject]:
    """Empty for a case with a person, and, with a problem, for one that cannot be used."""
    try:
        references = [entry[key] for key in sorted(entry) if key.startswith("ref_img_")]
        named = [str(reference["image_path"]) for reference in references]
        words = [str(reference["SAD"]["id"]) for reference in references]
        entry["prompt"]
        if not named:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        problem = Problem(f"{path.name}, {name}", "missing", "is not as LAMICBench's are", scored=False)
        benchmark.problems.append(problem)
        return []
    if any(map(is_person, named)):
        return []
    found = [picture(path, file) for file in named]
    missing = [file for file, at in zip(named, found) if at is None]
    benchmark.problems += [
        Problem(file, "missing", "is in the list, but there is no file", scored=False) for file in missing
    ]
    if missing:
        return []
    return [
        Subject(name_of(file), words_of(word), (at,))
        for file, word, at in zip(named, words, found)
        if at is not None
    ]
