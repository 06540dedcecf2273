"""The toy world's prompts as a benchmark: references written to files, the ground truth drawn again from the seed.

`write` makes the folder, `squeeze eval generate toyworld --data FOLDER` the pictures, `squeeze eval toyworld --run`
measures them.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, Field

from ...errors import SqueezeError
from ..cases import Benchmark, Sample, Subject

FILE = "toyworld.json"


class Settings(BaseModel):
    """Of a folder. version: of the toy world's drawing; another one draws other pictures."""

    version: int
    seed: int = Field(ge=0)
    count: int = Field(ge=1)


def write(folder: Path, count: int = 64, seed: int = 0) -> None:
    """References as NNNN.png, and toyworld.json. Raises `SqueezeError` when the folder is there already."""
    from PIL import Image

    from ...files import write_text
    from ...toyworld import VERSION, scenes
    from ..measures.toyworld import pairs

    if folder.exists():
        raise SqueezeError(f'"{folder}" is there already. Give the name of a new folder.')
    folder.mkdir(parents=True)
    for number, pair in enumerate(pairs(count, seed)):
        Image.fromarray(scenes.render(pair.references[0])).save(folder / f"{number:04d}.png")
    settings = Settings(version=VERSION, seed=seed, count=count)
    write_text(
        folder / FILE, json.dumps(settings.model_dump(), indent=1) + "\n"
    )  # last: only a whole folder has it


def settings_of(folder: Path) -> Settings:
    """Raises `SqueezeError` for a folder that `write` did not make, or another version's."""
    from ...toyworld import VERSION

    try:
        settings = Settings.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise SqueezeError(
            f'"{folder}" holds no readable {FILE}. Make the folder with: squeeze eval toyworld --prompts {folder}'
        ) from error
    if settings.version != VERSION:
        raise SqueezeError(
            f'"{folder}" is for version {settings.version} of the toy world; this is {VERSION}. Make it again.'
        )
    return settings


def read(folder: Path) -> Benchmark:
    """One sample a pair: subject "0007", prompt 0. Raises `SqueezeError`."""
    from ..measures.toyworld import pairs

    settings = settings_of(folder)
    samples = []
    for number, pair in enumerate(pairs(settings.count, settings.seed)):
        name = f"{number:04d}"
        samples.append(Sample(name, 0, pair.prompt, (Subject(name, "shape", (folder / f"{name}.png",)),)))
    return Benchmark("Toy world", samples, 1, "drawn by squeeze eval toyworld")
