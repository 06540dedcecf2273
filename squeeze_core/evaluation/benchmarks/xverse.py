"""XVerseBench, single subjects, from github.com/bytedance/XVerse: eval/tools/XVerseBench_single.json."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ..cases import Benchmark, Sample, Subject, require
from ..pictures import Problem
from .entries import is_person, load, name_of, picture, words_of

LIST = "XVerseBench_single.json"
SEEDS = 4
HINT = "Make its pictures from DreamBench++'s as the repository's assets/ReadMe.md says."


def read(folder: Path) -> Benchmark:
    """folder: the repository with its assets, or the list itself. People are left out. Raises `SqueezeError`."""
    entries, path = load(folder, LIST)
    benchmark = Benchmark("XVerseBench", [], SEEDS, source=f"github.com/bytedance/XVerse, {path.name}")
    benchmark.notes.append("Subject categories only, no people, as in the paper.")
    numbers: Counter[str] = Counter()
    for position, entry in enumerate(entries if isinstance(entries, list) else []):
        subjects = _subjects(entry, path, benchmark, position)
        if not subjects:
            continue
        group = "__".join(subject.name for subject in subjects)
        text = " ".join(str(entry.get("prompt", "")).split())
        benchmark.samples.append(Sample(group, numbers[group], text, tuple(subjects), "subject"))
        numbers[group] += 1
    require(benchmark.samples, "XVerseBench", path, benchmark.problems, HINT)
    return benchmark


def _subjects(entry: Any, path: Path, benchmark: Benchmark, position: int) -> list[Subject]:
    """Empty for an entry about a person, and, with a problem, for one that cannot be used."""
    try:
        adapter = entry["modulation"][0]
        named = [str(source["image_path"]) for source in adapter["src_inputs"]]
        words = [str(use[1]) for use in adapter["use_words"]]
        entry["prompt"]
        if not named or len(named) != len(words):
            raise ValueError
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        problem = Problem(f"{path.name}, entry {position}", "missing", "is not as XVerseBench's are", scored=False)
        benchmark.problems.append(problem)
        return []
    if any(map(is_person, named)):
        return []
    found = [picture(path, name) for name in named]
    for name, file in zip(named, found):
        if file is None:
            benchmark.problems.append(
                Problem(name, "missing", "is in the list, but there is no file", scored=False)
            )
    return [
        Subject(name_of(name), words_of(word), (file,))
        for name, word, file in zip(named, words, found)
        if file is not None and None not in found
    ]
