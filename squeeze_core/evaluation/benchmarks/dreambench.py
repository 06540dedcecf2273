"""DreamBench: 30 subjects x 25 prompts x 4 pictures, from github.com/google/dreambooth.

Its `dataset` folder holds one folder of pictures a subject, and prompts_and_classes.txt with the subjects'
classes and two lists of prompts: one for objects, one for live subjects (cats and dogs).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import SqueezeError
from ..cases import Benchmark, Sample, Subject, require
from ..pictures import SUFFIXES

FILE = "prompts_and_classes.txt"
CLONE = "git clone https://github.com/google/dreambooth"
LIVE = ("cat", "dog")
SEEDS = 4


@dataclass(frozen=True)
class PromptsAndClasses:
    """classes: by subject. objects, live: prompts with {} where the class belongs."""

    classes: dict[str, str]
    objects: tuple[str, ...]
    live: tuple[str, ...]

    def prompts(self, subject: str) -> tuple[str, ...]:
        """The prompts of a subject, with its class in them."""
        name = self.classes[subject]
        return tuple(t.format(name) for t in (self.live if name in LIVE else self.objects))


def read(folder: Path) -> Benchmark:
    """folder: the repository, its `dataset` folder, or prompts_and_classes.txt itself. Raises `SqueezeError`."""
    folder = data_folder(folder)
    known = parse((folder / FILE).read_text(encoding="utf-8"))
    benchmark = Benchmark("DreamBench", [], SEEDS, source="github.com/google/dreambooth, dataset")
    for name, words in known.classes.items():
        references = pictures_of(folder / name)
        if not references:
            benchmark.notes.append(f'The folder of "{name}" is missing or empty; the subject is left out.')
            continue
        subject = Subject(name, words, references)
        category = "live" if words in LIVE else "object"
        benchmark.samples += [
            Sample(name, number, text, (subject,), category) for number, text in enumerate(known.prompts(name))
        ]
    require(benchmark.samples, "DreamBench", folder)
    return benchmark


def parse(text: str) -> PromptsAndClasses:
    """The contents of prompts_and_classes.txt. Raises `SqueezeError` unless classes and both lists are there."""
    classes: dict[str, str] = {}
    prompts: dict[str, list[str]] = {"object": [], "live": []}
    section = ""
    for line in map(str.strip, text.splitlines()):
        heading = line.lower()
        if heading == "classes":
            section = "classes"
        elif heading.endswith("prompts"):
            section = "live" if heading.startswith("live") else "object" if heading.startswith("object") else ""
        elif section == "classes" and line.count(",") == 1 and not heading.startswith("subject_name"):
            name, words = (part.strip() for part in line.split(","))
            if name and words:
                classes[name] = words
        elif section in prompts and (template := _template(line)):
            prompts[section].append(template)
    if not classes or not prompts["object"] or not prompts["live"]:
        raise SqueezeError(
            f"{FILE} lacks the list of classes, of object prompts or of live subject prompts. Get it again: {CLONE}"
        )
    return PromptsAndClasses(classes, tuple(prompts["object"]), tuple(prompts["live"]))


def data_folder(folder: Path) -> Path:
    """Where prompts_and_classes.txt lies. Raises `SqueezeError`."""
    if folder.name == FILE:
        folder = folder.parent
    for candidate in (folder, folder / "dataset"):
        if (candidate / FILE).is_file():
            return candidate
    raise SqueezeError(f'"{folder}" holds no {FILE}. Get DreamBench ({CLONE}) and give its folder.')


def pictures_of(folder: Path) -> tuple[Path, ...]:
    """The pictures of one folder, by name."""
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES))


def _template(line: str) -> str:
    """`'a {0} {1} on the beach'.format(unique_token, class_token),` -> `a {} on the beach`; else nothing.

    The unique token belongs to DreamBooth's fine-tuning; methods without it leave it out.
    """
    match = re.match(r"""(['"])(.+)\1\.format\(""", line)
    if match is None or "{1}" not in match[2]:
        return ""
    words = match[2].replace("{0}", "").replace("{1}", "\0")
    words = words.replace("{", "{{").replace("}", "}}").replace("\0", "{}")
    return " ".join(words.split())
