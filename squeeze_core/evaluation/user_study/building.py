"""Pictures of several methods -> a folder with a page that any browser opens, and a key kept apart from it.

The page is blind: it holds neither names of methods nor anything that gives them away. Picture files are written
anew, without metadata, under names drawn at random; which name is whose is in the key alone.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from ...errors import SqueezeError
from ...files import whole_folder, write_text
from ..pictures import read

LONG_SIDE = 1024  # pixels: several pictures side by side need no more


@dataclass(frozen=True)
class Case:
    """One question: what was asked for, and what each method made of it.

    name: such as "cat/03". pictures: method -> file.
    """

    name: str
    prompt: str
    references: tuple[Path, ...]
    pictures: Mapping[str, Path]


class KeyedCase(BaseModel):
    """A question of the key. pictures: name on the page -> method."""

    name: str
    prompt: str
    pictures: dict[str, str]


class Key(BaseModel):
    """Which picture is whose. questions: id on the page -> case."""

    format: str = "squeeze user study key"
    study: str
    methods: list[str]
    questions: dict[str, KeyedCase]

    @classmethod
    def read(cls, path: Path) -> Key:
        """Raises `SqueezeError` for what is no key."""
        try:
            key = cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SqueezeError(
                f'"{path}" cannot be read as the key of a user study ({_short(error)}). '
                "Give the .key.json file that was written beside the study's folder."
            ) from error
        if key.format != cls.model_fields["format"].default:
            raise SqueezeError(f'"{path}" is no key of a user study. Give the .key.json file of the study.')
        return key


def choose(cases: Sequence[Case], count: int = 10, seed: int = 0) -> list[Case]:
    """Cases that every method has a picture for, `count` of them at random (all, if there are fewer).

    Raises `SqueezeError` when there is none, or fewer than two methods.
    """
    methods = {method for case in cases for method in case.pictures}
    if len(methods) < 2:
        raise SqueezeError(
            f"The user study compares methods side by side; {len(methods)} was given. Give two or more folders."
        )
    shared = [case for case in cases if set(case.pictures) == methods]
    if not shared:
        raise SqueezeError(
            f"No prompt has a picture of each of the methods {', '.join(sorted(methods))}. "
            "Name the pictures of all folders by the same scheme, or generate what is missing."
        )
    ordered = sorted(shared, key=lambda case: case.name)
    return random.Random(seed).sample(ordered, min(count, len(ordered)))


def build(cases: Sequence[Case], folder: Path) -> Key:
    """Write `folder`/index.html with its pictures, and the key as `folder`.key.json beside the folder.

    The folder can be opened from disk, zipped, or put on any static server; the key stays with you. Raises
    `SqueezeError` when the folder or the key is there already, or a picture cannot be read.
    """
    for path in (folder, key_path(folder)):  # the folder may be with participants, and its key still counts
        if path.exists():
            raise SqueezeError(
                f'"{path}" is there already. Give the name of a new folder: answers belong to one study.'
            )
    methods = sorted({method for case in cases for method in case.pictures})
    study = secrets.token_hex(6)
    with whole_folder(folder) as temporary:
        (temporary / "pictures").mkdir()
        questions, keyed = [], {}
        for case in cases:
            question = secrets.token_hex(4)
            names = {secrets.token_hex(6): method for method in case.pictures}
            pictures = [
                {"id": name, "file": _copied(case.pictures[method], temporary, name)}
                for name, method in names.items()
            ]
            # Sorted by their random names: the order in the file tells nothing.
            pictures.sort(key=lambda picture: picture["id"])
            references = [_copied(path, temporary, secrets.token_hex(6)) for path in case.references]
            questions.append(
                {"id": question, "prompt": case.prompt, "references": references, "pictures": pictures}
            )
            keyed[question] = KeyedCase(name=case.name, prompt=case.prompt, pictures=names)
        key = Key(study=study, methods=methods, questions=keyed)
        page = {"id": study, "methods": len(methods), "questions": questions}
        (temporary / "index.html").write_text(_page(page), encoding="utf-8")
        write_text(key_path(folder), key.model_dump_json(indent=2) + "\n")
    return key


def key_path(folder: Path) -> Path:
    """Where the key of a study lies: never inside the folder, which participants get."""
    return folder.with_name(f"{folder.name}.key.json")


def _page(study: dict) -> str:
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    # A "<" inside a prompt must not end the script element.
    return template.replace("/*STUDY*/", json.dumps(study).replace("<", "\\u003c"))


def _copied(path: Path, folder: Path, name: str) -> str:
    from PIL import Image

    picture, problems = read(path)
    if picture is None:
        raise SqueezeError(f"{problems[0]}. Replace the picture, or leave its prompt out of the study.")
    picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS)
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)  # pixels only: no EXIF, no prompt, no settings
    file = f"pictures/{name}.png"
    clean.save(folder / file)
    return file


def _short(error: Exception) -> str:
    return str(error).splitlines()[0]
