"""Picture files: read as Pillow pictures, written whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SqueezeError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(path: Path) -> Image:
    """A picture file as RGB, turned as its camera says; transparency is put on white. Raises `SqueezeError`."""
    from PIL import ImageOps

    from .images import as_rgb

    return as_rgb(ImageOps.exif_transpose(_open(path)))


def read_mask(path: Path) -> Image:
    """A mask file as grey values, white at the subject. Raises `SqueezeError`."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(_open(path)).convert("L")


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
