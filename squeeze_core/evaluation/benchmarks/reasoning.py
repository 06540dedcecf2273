"""The paper's reasoning benchmark (appendix G), built from pictures that the user has made.

A composite is a generated picture of a subject with an accessory: "a cat wearing a shirt". The benchmark asks for
the accessory on somebody else, "an elephant wearing a shirt", so that a model must find the shirt and leave the
cat. 170 samples give the composite alone; 180 give a picture of the new subject as well.

The paper's own composites are not published; they were checked by eye. Look at the review sheets, and delete the
entries whose composite does not show its accessory from samples.json: what is left is the benchmark.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from ...errors import SqueezeError
from ...files import file_hash, whole_folder
from .. import pictures
from ..cases import Benchmark, Sample, Subject
from ..generated_files import Generated

FILE = "samples.json"
ONE, TWO = 170, 180
# Who may wear a cat's shirt: subjects that DreamBench does not have.
CATEGORIES = (
    "elephant", "lion", "tiger", "panda", "monkey", "horse", "rabbit", "fox", "koala", "penguin", "bear", "giraffe",
    "owl", "pig", "sheep", "kangaroo",
)  # fmt: skip
ACCESSORY = re.compile(r"\b(?:wearing|holding|carrying)\b|\bin an? (?:[\w-]+ )*outfit\b", re.IGNORECASE)
# Spelled with a vowel and spoken without, and the other way round.
_NO_VOWEL, _SILENT_H = (
    re.compile(r"(?:uni|use|usu|eu|one\b|ur[aeiou])", re.I),
    re.compile(r"(?:hour|hono|heir)", re.I),
)


class Entry(BaseModel):
    """One sample of samples.json. Files are relative to it.

    composite_subject: who is in the composite; prompt: with the new subject's category in place of that one's.
    reference: a picture of the new subject, for the kind "two".
    """

    kind: Literal["one", "two"]
    composite: str
    composite_subject: str
    original_prompt: str
    category: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    reference: str | None = None


@dataclass(frozen=True)
class _Choice:
    """category: what takes the composite's place; reference: its picture, for two references."""

    category: str
    reference: Path | None = None


def replace_category(prompt: str, old: str, new: str) -> str | None:
    """The prompt with its first `old` replaced by `new`, article included; None when `old` is not in it.

    "a cat wearing a shirt", cat, elephant -> "an elephant wearing a shirt".
    """
    words = r"\s+".join(map(re.escape, old.split()))
    found = re.search(rf"(?:\b(?P<article>an?)(?P<space>\s+))?(?<!\w){words}(?!\w)", prompt, re.IGNORECASE)
    if not old.strip() or found is None:
        return None
    put = new
    if found["article"]:
        article = "an" if _sounds_like_vowel(new) else "a"
        put = (article.capitalize() if found["article"][0].isupper() else article) + found["space"] + new
    return prompt[: found.start()] + put + prompt[found.end() :]


def eligible(composites: Sequence[Generated]) -> list[Generated]:
    """Those whose prompt puts an accessory on the subject, and names the subject's category."""
    return [
        picture
        for picture in sorted(composites, key=lambda picture: picture.name)
        if ACCESSORY.search(picture.sample.text)
        and len(picture.sample.subjects) == 1
        and replace_category(picture.sample.text, picture.sample.subjects[0].words, "x")
    ]


def build(
    composites: Sequence[Generated],
    dreambench: Benchmark,
    folder: Path,
    *,
    one: int = ONE,
    two: int = TWO,
    categories: Sequence[str] = CATEGORIES,
    seed: int = 0,
) -> Path:
    """Write the benchmark to a new folder: samples.json, the pictures, and review sheets. Returns samples.json.

    composites: pictures of DreamBench's cases by a method of your choice. Each composite is used about equally
    often; the same input and seed give the same samples. Raises `SqueezeError` when the folder is there already,
    no composite fits, or there are fewer different samples than asked for.
    """
    if folder.exists():
        raise SqueezeError(f'"{folder}" is there already. Give the name of a new folder.')
    usable = eligible(composites)
    if not usable:
        raise SqueezeError(
            "No composite shows a subject with an accessory. Generate DreamBench's prompts such as "
            '"a cat wearing a red hat" first; only live subjects have them.'
        )
    owners = _second_subjects(dreambench)
    draws = random.Random(seed)
    chosen = _choose(usable, [_Choice(category) for category in categories], one, "one", draws)
    chosen += _choose(usable, owners, two, "two", draws)
    with whole_folder(folder) as temporary:
        entries = [_write(temporary, picture, choice) for picture, choice in chosen]
        text = json.dumps([entry.model_dump(exclude_none=True) for entry in entries], indent=2, ensure_ascii=False)
        (temporary / FILE).write_text(text + "\n", encoding="utf-8")
        _write_review(temporary, entries)
    return folder / FILE


def read(folder: Path) -> Benchmark:
    """A folder that `build` wrote. Raises `SqueezeError`, also when a picture is missing."""
    path = folder / FILE if folder.is_dir() else folder
    entries = parse(path)
    counts: dict[str, int] = {}
    samples = []
    for entry in entries:
        files = [path.parent / name for name in (entry.composite, entry.reference) if name is not None]
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise SqueezeError(f'"{path}" names {absent[0]}, which is not there. Build the benchmark again.')
        name = f"{entry.kind}_{entry.composite_subject}"
        number = counts[name] = counts.get(name, -1) + 1
        subjects = [Subject(entry.composite_subject, _accessory(entry), (files[0],))]
        if entry.kind == "two":
            subjects.append(Subject(entry.category, entry.category, (files[1],)))
        samples.append(Sample(name, number, entry.prompt, tuple(subjects), entry.kind))
    kinds = [entry.kind for entry in entries]
    note = (
        f"{kinds.count('one')} samples with one reference, {kinds.count('two')} with two, built as appendix G says "
        "from composites of your own: the paper's are not published, so its scores compare only roughly."
    )
    return Benchmark("Reasoning", samples, 1, "built by squeeze eval reasoning", [note])


def parse(path: Path) -> list[Entry]:
    """The entries of samples.json. Raises `SqueezeError` that names the entry and what is wrong with it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SqueezeError(f'"{path}" is not readable JSON ({" ".join(str(error).split())}).') from error
    if not isinstance(data, list) or not data:
        raise SqueezeError(f'"{path}" is no list of samples. Build it with: squeeze eval reasoning build')
    entries = []
    for number, row in enumerate(data, start=1):
        try:
            entry = Entry.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise SqueezeError(f'Sample {number} of "{path}" is wrong at "{place}": {first["msg"]}.') from error
        if (entry.kind == "two") != (entry.reference is not None):
            raise SqueezeError(f'Sample {number} of "{path}": the kind "two" has a reference, "one" has none.')
        entries.append(entry)
    return entries


def _second_subjects(dreambench: Benchmark) -> list[_Choice]:
    """One choice a live subject, with its first picture."""
    subjects = {sample.subjects[0].name: sample.subjects[0] for sample in dreambench.samples if _is_live(sample)}
    return [_Choice(subject.words, subject.references[0]) for _, subject in sorted(subjects.items())]


def _is_live(sample: Sample) -> bool:
    return sample.category == "live"


def _choose(
    usable: Sequence[Generated], choices: Sequence[_Choice], count: int, kind: str, draws: random.Random
) -> list[tuple[Generated, _Choice]]:
    """`count` different pairs, each composite about equally often, in an order drawn at random."""
    open_choices = {
        picture.name: draws.sample(fitting, len(fitting))
        for picture in usable
        if (fitting := [choice for choice in choices if _differs(picture, choice)])
    }
    possible = sum(map(len, open_choices.values()))
    if possible < count:
        raise SqueezeError(
            f'{count} samples of the kind "{kind}" are asked for, and {len(usable)} composites give {possible}. '
            f"Give more composites, or ask for fewer (--{kind})."
        )
    by_name = {picture.name: picture for picture in usable}
    chosen: list[tuple[Generated, _Choice]] = []
    while len(chosen) < count:
        names = draws.sample(sorted(open_choices), len(open_choices))
        for name in names[: count - len(chosen)]:
            chosen.append((by_name[name], open_choices[name].pop()))
            if not open_choices[name]:
                del open_choices[name]
    return chosen


def _differs(picture: Generated, choice: _Choice) -> bool:
    """Another category than the composite's: a cat's shirt on the same kind of cat asks for no reasoning."""
    return choice.category.casefold() != picture.sample.subjects[0].words.casefold()


def _write(folder: Path, picture: Generated, choice: _Choice) -> Entry:
    owner = picture.sample.subjects[0]
    prompt = replace_category(picture.sample.text, owner.words, choice.category)
    assert prompt is not None  # eligible
    return Entry(
        kind="one" if choice.reference is None else "two",
        composite=_copied(folder / "composites", picture.path),
        composite_subject=owner.name,
        original_prompt=picture.sample.text,
        category=choice.category,
        prompt=prompt,
        reference=None if choice.reference is None else _copied(folder / "references", choice.reference),
    )


def _copied(folder: Path, path: Path) -> str:
    """Under its contents' hash: one file however often it is used, whatever it was called."""
    target = folder / f"{file_hash(path)[:16]}{path.suffix.lower()}"
    if not target.exists():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return f"{folder.name}/{target.name}"


def _write_review(folder: Path, entries: Sequence[Entry], each: int = 40) -> None:
    """Sheets of all composites with what they should show, to be checked by eye."""
    from ...contact_sheet import contact_sheet

    shown = list({entry.composite: entry for entry in entries}.values())
    for start in range(0, len(shown), each):
        cells = []
        for entry in shown[start : start + each]:
            picture, _ = pictures.read(folder / entry.composite)
            if picture is not None:
                cells.append((f"{entry.original_prompt[:32]}\n{Path(entry.composite).stem}", picture))
        rows = [cells[i : i + 8] for i in range(0, len(cells), 8)]
        if rows:
            note = "Delete the samples of a composite that does not show its accessory from samples.json."
            contact_sheet(rows, "Does each picture show what it says?", note).save(
                folder / f"review_{start // each}.jpg"
            )


def _accessory(entry: Entry) -> str:
    """What is to be found in the composite, in words: "wearing a shirt"."""
    found = ACCESSORY.search(entry.prompt)
    return entry.prompt[found.start() :].strip(" .") if found else entry.prompt


def _sounds_like_vowel(word: str) -> bool:
    if _NO_VOWEL.match(word):
        return False
    return bool(_SILENT_H.match(word)) or word[:1].lower() in tuple("aeiou")
