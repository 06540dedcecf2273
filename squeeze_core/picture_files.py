"""Picture files: read as RGB or as masks, whatever stores them, and written whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import SqueezeError
from .files import whole

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

_ORIENTATION = 0x0112


class UnreadablePicture(SqueezeError):
    """A file that is no picture, or a damaged one. reason: why, without the file's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f'"{name}" cannot be read as a picture ({reason}). Give a PNG, JPEG or WebP.')
        self.reason = reason


def read_picture(path: Path) -> Image:
    """A picture file as RGB, turned as its camera says; transparency is put on white.

    A picture of 16 bits that may as well be one of 12 is named on stderr. Raises `SqueezeError`.
    """
    from .images import as_rgb, range_note

    picture = _of_file(path)
    with _naming(path):
        if (note := range_note(picture)) is not None:
            print(f'squeeze: "{path}" {note}.', file=sys.stderr)
        return as_rgb(picture)


def read_mask(path: Path) -> Image:
    """A mask file as grey values, white at the subject; see `images.mask_to_tensor`. Raises `SqueezeError`."""
    from .images import as_mask

    picture = _of_file(path)
    with _naming(path):
        return as_mask(picture)


def decode(data: bytes, name: str, look: Callable[[ImageFile], None] | None = None) -> Image:
    """A file's bytes as a picture of the mode that it has, all of it decoded, turned as its camera says.

    look: called before anything is decoded, while Pillow still tells how the file stores its pixels.
    Raises `UnreadablePicture`: Pillow's readers raise whatever a damaged file leads them to.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(data)) as opened:
            if look is not None:
                look(opened)
            opened.load()
            return upright(opened)
    except Exception as error:
        raise UnreadablePicture(name, " ".join(str(error).split()) or type(error).__name__) from error


def upright(picture: Image) -> Image:
    """Turned as its camera says. An orientation that cannot be read counts as upright, whatever else EXIF holds."""
    from PIL import Image

    turns = (
        *(Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM),
        *(Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE),
        Image.Transpose.ROTATE_90,
    )
    try:
        orientation = int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:
        orientation = 1
    made = picture.transpose(turns[orientation - 2]) if 2 <= orientation <= 8 else picture.copy()
    for key in ("exif", "xmp", "XML:com.adobe.xmp"):
        made.info.pop(key, None)  # whoever asks again must not turn it twice
    return made


def write_picture(picture: Image, path: Path, notes: Mapping[str, str] | None = None) -> Path:
    """Write a picture whole or not at all. notes go into PNG files as text."""
    from PIL.PngImagePlugin import PngInfo

    options: dict[str, Any] = {}
    if path.suffix.lower() == ".png" and notes:
        info = PngInfo()
        for key, value in notes.items():
            info.add_text(key, value)
        options["pnginfo"] = info
    try:
        with whole(path) as temporary:
            picture.save(temporary, **options)
    except OSError as error:
        raise SqueezeError(f'"{path}" cannot be written ({error.strerror or error}).') from error
    return path


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Sentences about a picture's values get its file's name."""
    try:
        yield
    except SqueezeError as error:
        raise SqueezeError(f'"{path}": {error}') from error


def _of_file(path: Path) -> Image:
    if not path.is_file():
        raise SqueezeError(f'There is no picture at "{path}". Check the name and the folder.')
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadablePicture(str(path), error.strerror or str(error)) from error
    return decode(data, str(path))
