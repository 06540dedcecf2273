"""What commands share: reading pictures, writing them whole, showing progress."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SqueezeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pipeline import Progress

_WORDS = {
    "encode": "MLLM reads",
    "references": "VAE encodes references",
    "sample": "FLUX samples",
    "decode": "VAE decodes",
}


def say(message: str) -> None:
    """A line for the user. On stderr, so that stdout holds only the names of what was written."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(message, markup=False)


def read_picture(path: Path) -> Image:
    """A picture file as RGB, turned as its camera says; transparency is put on white. Raises `SqueezeError`."""
    from PIL import ImageOps

    from ..images import as_rgb

    return as_rgb(ImageOps.exif_transpose(_open(path)))


def read_mask(path: Path) -> Image:
    """A mask file as grey values, white at the subject. Raises `SqueezeError`."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(_open(path)).convert("L")


def _open(path: Path) -> Image:
    from PIL import Image

    if not path.is_file():
        raise SqueezeError(f'There is no picture at "{path}". Check the name and the folder.')
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise SqueezeError(f'"{path}" cannot be read as a picture ({error}). Give a PNG, JPEG or WebP.') from error


def check_output(path: Path) -> None:
    """Before any long work: can this picture file be written? Raises `SqueezeError`."""
    if path.is_dir():
        raise SqueezeError(f'"{path}" is a folder. Give the name of a file in it.')
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise SqueezeError(f'"{path.name}" is no name of a picture. End it in .png, .jpg or .webp.')
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Raises `SqueezeError` when the folder can neither be made nor written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SqueezeError(
            f'The folder "{folder}" cannot be written to ({error.strerror or error}). Choose another one.'
        ) from error


def write_picture(picture: Image, path: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write a picture whole or not at all. notes go into PNG files as text."""
    from PIL.PngImagePlugin import PngInfo

    options: dict[str, Any] = {}
    if path.suffix.lower() == ".png" and notes:
        info = PngInfo()
        for key, value in notes.items():
            info.add_text(key, value)
        options["pnginfo"] = info
    # The suffix stays last: Pillow takes the format from it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        picture.save(temporary, **options)
        os.replace(temporary, path)
    except OSError as error:
        raise SqueezeError(f'"{path}" cannot be written ({error.strerror or error}).') from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr for each kind of work, as `SqueezePipeline.generate` reports it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(_WORDS.get(what, what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
