"""Which case of a benchmark a picture file belongs to, so that the pictures of any tool can be scored.

Two ways, the first of them what `squeeze eval generate` writes:

- by name: `SUBJECT/PROMPT_SEED.png`, as in `dog6/07_2.png`: the subject's folder, the prompt's number in the
  benchmark from 0, the seed's number. `SUBJECT/PROMPT.png` means seed 0.
- by a `manifest.json` beside the pictures: a list of objects with "file", "subject", and either "prompt" (the
  number) or "text" (the prompt itself); "seed" may be left out. With a manifest, names do not matter.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SqueezeError
from .cases import Benchmark, Sample
from .pictures import Problem, find, relative

MANIFEST = "manifest.json"
_STEM = re.compile(r"(\d{1,6})(?:_(\d{1,10}))?")


@dataclass(frozen=True)
class Generated:
    """A picture file and the case it was made for. name: relative to the folder, for reports."""

    path: Path
    name: str
    sample: Sample
    seed: int


def file_name(sample: Sample, seed: int) -> Path:
    """Relative to the folder of a run."""
    return Path(sample.subject) / f"{sample.prompt:02d}_{seed}.png"


def parse(name: str | Path) -> tuple[str, int, int] | None:
    """(subject, prompt, seed) of `SUBJECT/PROMPT_SEED.png`; None when the name does not follow the scheme.

    Only the last folder counts, so that a run may lie deeper.
    """
    path = Path(name)
    match = _STEM.fullmatch(path.stem)
    if match is None or not path.parent.name:
        return None
    return path.parent.name, int(match[1]), int(match[2] or 0)


def collect(folder: Path, benchmark: Benchmark) -> tuple[list[Generated], list[Problem]]:
    """The pictures of a folder with their cases, in the benchmark's order.

    Problems: files whose name or entry fits no case, cases named by two files (the first name is scored),
    entries without a file, and one line that counts the cases without a picture.
    Raises `SqueezeError` when nothing at all can be scored, or the manifest is no such list.
    """
    manifest = folder / MANIFEST
    if manifest.is_file():
        named, problems = _by_manifest(manifest, benchmark)
    else:
        named, problems = _by_name(folder, find(folder), benchmark)
    kept: dict[tuple[str, int, int], Generated] = {}
    for picture in named:
        key = (picture.sample.subject, picture.sample.prompt, picture.seed)
        if key in kept:
            text = f"is for the same case as {kept[key].name}, which is scored instead"
            problems.append(Problem(picture.name, "doubled", text, scored=False))
        else:
            kept[key] = picture
    if not kept:
        raise SqueezeError(
            f'No picture in "{folder}" belongs to {benchmark.name}. Name them SUBJECT/PROMPT_SEED.png, such as '
            f"{file_name(benchmark.samples[0], 0).as_posix()}, or add a {MANIFEST}."
        )
    problems += _missing(kept, benchmark)
    order = {(sample.subject, sample.prompt): i for i, sample in enumerate(benchmark.samples)}
    return sorted(kept.values(), key=lambda p: (order[p.sample.subject, p.sample.prompt], p.seed)), problems


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The entries of a manifest. Raises `SqueezeError` unless it is a JSON list of objects."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SqueezeError(
            f'"{path}" is not readable JSON ({" ".join(str(error).split())}). Write it again.'
        ) from error
    if isinstance(data, dict):
        data = data.get("pictures")
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise SqueezeError(
            f'"{path}" is no list of objects. Each picture needs "file", "subject", and "prompt" or "text".'
        )
    return data


def _by_name(folder: Path, paths: Iterable[Path], benchmark: Benchmark) -> tuple[list[Generated], list[Problem]]:
    named: list[Generated] = []
    problems: list[Problem] = []
    for path in paths:
        name = relative(path, folder)
        # A folder given for a single subject is itself the subject's.
        parsed = parse(name) or parse(Path(folder.resolve().name) / name)
        if parsed is None:
            problems.append(Problem(name, "unnamed", "is not named SUBJECT/PROMPT_SEED", scored=False))
            continue
        subject, prompt, seed = parsed
        sample = benchmark.find(subject, prompt)
        if sample is None:
            problems.append(Problem(name, "unnamed", _no_case(benchmark, subject, prompt), scored=False))
        else:
            named.append(Generated(path, name, sample, seed))
    return named, problems


def _by_manifest(path: Path, benchmark: Benchmark) -> tuple[list[Generated], list[Problem]]:
    named: list[Generated] = []
    problems: list[Problem] = []
    for number, entry in enumerate(read_manifest(path), start=1):
        name = str(entry.get("file", f"entry {number}"))
        result = _entry(path.parent, name, entry, benchmark)
        if isinstance(result, Problem):
            problems.append(result)
        else:
            named.append(result)
    return named, problems


def _entry(folder: Path, name: str, entry: dict[str, Any], benchmark: Benchmark) -> Generated | Problem:
    subject, prompt, text, seed = (entry.get(key) for key in ("subject", "prompt", "text", "seed"))
    if not isinstance(entry.get("file"), str) or not isinstance(subject, str):
        return Problem(name, "unnamed", 'has no "file" or no "subject" in the manifest', scored=False)
    if not _is_number(seed if seed is not None else 0):
        return Problem(name, "unnamed", f"has the seed {seed!r}, which is no whole number", scored=False)
    if isinstance(prompt, int) and _is_number(prompt):
        sample = benchmark.find(subject, prompt)
        if sample is not None and isinstance(text, str) and text.split() != sample.text.split():
            other = f'has the prompt {prompt}, which is "{sample.text}", and the text "{text}". Say which one it is'
            return Problem(name, "unnamed", other, scored=False)
    elif isinstance(text, str):
        sample = benchmark.find_text(subject, text)
    else:
        return Problem(name, "missing", 'has neither "prompt" nor "text" in the manifest', scored=False)
    if sample is None:
        return Problem(name, "unnamed", _no_case(benchmark, subject, prompt if _is_number(prompt) else text), False)
    path = folder / name
    if not os.path.isfile(path):  # Path.is_file raises for names that are too long
        return Problem(name, "missing", "is in the manifest, but there is no such file", scored=False)
    return Generated(path, name, sample, int(seed or 0))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _no_case(benchmark: Benchmark, subject: str, prompt: Any) -> str:
    prompts = benchmark.of(subject)
    if not prompts:
        return f'belongs to "{subject}", which {benchmark.name} does not have'
    return f'has the prompt {prompt!r}; "{prompts[0].subject}" of {benchmark.name} has 0 to {prompts[-1].prompt}'


def _missing(kept: dict[tuple[str, int, int], Generated], benchmark: Benchmark) -> list[Problem]:
    asked = {(sample.subject, sample.prompt) for sample in benchmark.samples}
    absent = asked - {key[:2] for key in kept}
    if not absent:
        return []
    first = sorted(absent)[0]
    text = (
        f"has pictures for {len(asked) - len(absent)} of the {len(asked)} prompts; "
        f"the first without is {first[0]}, prompt {first[1]}"
    )
    return [Problem(benchmark.name, "missing", text, scored=False)]
