"""Picture files -> RGB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SqueezeError
from ..images import as_rgb
from ..picture_files import UnreadablePicture, decode
from .examples import BrokenExample, SourceFailure

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_SIDE = 32


def read_rgb(path: Path) -> Image:
    """A file's picture; see `decoded`."""
    return decoded(path.read_bytes, str(path))


def decoded(read: Callable[[], bytes], name: str) -> Image:
    """As RGB, turned as its camera says; transparency is put on white. Raises `BrokenExample`.

    read: gives the file's bytes, or raises `OSError`. name: the file's, for messages. The whole file is decoded
    here, so that a truncated one is found now.
    """
    try:
        picture = as_rgb(decode(read(), name))
    except SourceFailure:  # of the place, not of this picture
        raise
    except UnreadablePicture as error:
        raise BrokenExample(f"{name}: {error.reason}") from error
    except (OSError, SqueezeError) as error:
        raise BrokenExample(f"{name}: {error}") from error
    if min(picture.size) < MIN_SIDE:
        raise BrokenExample(f"{name}: only {picture.width} x {picture.height} px")
    return picture
