"""What distillation learns from: a teacher hears words, the student reads or sees the same.

A text is heard and read alike. A *described picture* is seen by the student, and the teacher hears the words that
tell who it shows. No pair of pictures is needed, as later stages need.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SqueezeError
from ..files import write_text
from .examples import BrokenExample, Numbered
from .labels import digest
from .pictures import decoded
from .texts import read_lines, read_texts

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
CAPTIONS = "captions.jsonl"  # words of pictures, in their folder
NO_PROMPT = "a picture of the subject of picture 1"

Span = tuple[int, int]


@dataclass(frozen=True)
class Told:
    """prompt, pictures: what the student's MLLM reads; pictures are RGB. words: what the teacher hears.

    prompt_at: where the prompt stands in the words; None when the teacher does not hear it. shown: the characters
    of the words that tell who the pictures show. name: what to call it when it makes trouble.
    """

    prompt: str
    words: str
    name: str
    pictures: tuple[Image, ...] = ()
    prompt_at: int | None = 0
    shown: Span | None = None


ToldExamples = Numbered[Told]


def described(picture: Image, words: str, prompt: str | None, name: str) -> Told:
    """A picture, and the words for it. With a prompt the teacher hears the words, then the prompt."""
    words = words.rstrip(". ")
    shown = (0, len(words))
    if prompt is None:
        return Told(NO_PROMPT, words, name, (picture,), None, shown)
    return Told(prompt, f"{words}. {prompt}", name, (picture,), len(words) + 2, shown)


class Texts:
    """The texts of a file, see `read_texts`."""

    def __init__(self, path: str | Path, column: str = "text") -> None:
        self.texts = read_texts(path, column)
        self.name = Path(path).name

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> Told:
        text = self.texts[number]
        return Told(text, text, f"text {number + 1} of {self.name}")

    def identity(self) -> str:
        return f"texts {digest(self.texts)}"


class PictureFolder:
    """A folder of pictures with words: NAME.txt beside NAME.png, or `captions.jsonl`, rows of picture, words and
    perhaps prompt. A picture without words is left out, until `describe` writes them.

    needed: whether the words must be there now. Raises `SqueezeError` for a folder without a picture.
    """

    def __init__(self, folder: str | Path, needed: bool = True) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise SqueezeError(f'There is no folder of pictures "{self.folder}". Check the name.')
        self._found = sorted(path.name for path in self.folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not self._found:
            raise SqueezeError(f'"{self.folder}" holds no picture ({", ".join(SUFFIXES)}).')
        self._rows = {name: row for name, row in self._captions().items() if name in set(self._found)}
        for name in self.without_words:
            beside = (self.folder / name).with_suffix(".txt")
            words = " ".join(read_lines(beside)).strip() if beside.is_file() else ""
            if words:
                self._rows[name] = {"picture": name, "words": words}
        if needed and not self.names:
            raise SqueezeError(
                f'None of the {len(self._found)} pictures in "{self.folder}" has words. Put NAME.txt beside '
                "NAME.png, or let the MLLM write them (describe: true)."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pictures that have words."""
        return tuple(name for name in self._found if name in self._rows)

    @property
    def without_words(self) -> tuple[str, ...]:
        return tuple(name for name in self._found if name not in self._rows)

    def describe(self, write: Callable[[Image], str]) -> None:
        """Words for each picture that has none, kept in captions.jsonl as soon as they are there.

        So each picture is asked for once, over any number of starts. A picture that cannot be read, or of which
        nothing can be said, stays without.
        """
        path = self.folder / CAPTIONS
        try:
            if path.is_file():  # without what a killed process left unfinished
                lines = [line for line in read_lines(path) if line.endswith("}")]
                write_text(path, "".join(f"{line}\n" for line in lines))
            for name in self.without_words:
                try:
                    row = {"picture": name, "words": write(self._picture(name))}
                except (BrokenExample, SqueezeError) as error:
                    print(f"squeeze: {name} stays without words: {error}", file=sys.stderr)
                    continue
                with open(path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                self._rows[name] = row
        except OSError as error:
            raise SqueezeError(
                f'Words of pictures cannot be kept in "{self.folder}" ({error.strerror or error}). '
                "Copy the pictures to a folder that can be written to."
            ) from error

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Told:
        """Raises `BrokenExample`."""
        row = self._rows[self.names[number]]
        return described(self._picture(row["picture"]), row["words"], row.get("prompt"), row["picture"])

    def identity(self) -> str:
        rows = (json.dumps(self._rows[name], sort_keys=True) for name in self.names)
        return f"described pictures {digest(rows)}"

    def _picture(self, name: str) -> Image:
        path = self.folder / name
        return decoded(path.read_bytes, str(path))

    def _captions(self) -> dict[str, dict[str, str]]:
        path = self.folder / CAPTIONS
        if not path.is_file():
            return {}
        rows = {}
        *lines, unfinished = read_lines(path)  # the last is what a killed process was writing, or nothing
        for number, line in enumerate([*lines, unfinished if unfinished.endswith("}") else ""], start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                kept = {key: str(row[key]).strip() for key in ("picture", "words", "prompt") if row.get(key)}
                rows[kept["picture"]] = kept
                if not kept["words"]:
                    raise ValueError("its words are blank")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise SqueezeError(
                    f'Line {number} of "{path}" is no row of picture and words ({error}). Mend it, or cut it off.'
                ) from error
        return rows
