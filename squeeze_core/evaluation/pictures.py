"""Pictures to be scored -> RGB, and a sentence about everything that was odd with them.

A picture that cannot be scored never stops a run: it is reported by name, and the rest is scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import SqueezeError
from ..images import as_rgb, range_note
from ..picture_files import UnreadablePicture, decode

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MIN_SIDE = 32  # px; below this, a backbone sees little but the blur of enlarging

Kind = Literal[
    "unreadable", "tiny", "grey", "cmyk", "16-bit", "alpha", "animated", "doubled", "missing", "unnamed", "unscored"
]


@dataclass(frozen=True)
class Problem:
    """Something odd about one file. scored: whether its picture was scored all the same."""

    file: str
    kind: Kind
    text: str
    scored: bool

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


def find(folder: Path) -> list[Path]:
    """All picture files below a folder, in the order of their names; hidden ones are left out.

    Raises `SqueezeError` when there is no such folder or no picture in it.
    """
    if not folder.is_dir():
        raise SqueezeError(f'There is no folder "{folder}". Give the folder that holds the pictures.')
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise SqueezeError(f'"{folder}" holds no pictures ({", ".join(SUFFIXES)}). Give another folder.')
    return found


def read(path: Path, name: str | None = None) -> tuple[Image | None, list[Problem]]:
    """A picture file as RGB, turned as its camera says, and what was odd about it.

    Transparency is put on white, 16 bits become 8 by dropping the low ones, grey and CMYK are converted.
    None instead of a picture when it is unreadable or has a side below 32 px. name: for the problems.
    """
    name = name or path.name
    kinds: list[tuple[Kind, str]] = []
    try:
        decoded = decode(path.read_bytes(), name, lambda opened: kinds.extend(_oddities(opened)))
        if (note := range_note(decoded)) is not None:
            kinds.append(("16-bit", note))
        picture = as_rgb(decoded)
    except (OSError, SqueezeError) as error:
        said = error.reason if isinstance(error, UnreadablePicture) else str(error)
        reason = " ".join(said.replace(str(path), path.name).split())
        return None, [Problem(name, "unreadable", f"cannot be read as a picture ({reason})", scored=False)]
    if min(picture.size) < MIN_SIDE:
        size = f"{picture.width} x {picture.height} px"
        text = f"has only {size}; at least {MIN_SIDE} on each side are needed"
        return None, [Problem(name, "tiny", text, scored=False)]
    return picture, [Problem(name, kind, text, scored=True) for kind, text in kinds]


def relative(path: Path, root: Path) -> str:
    """A file's name for reports: below the root with forward slashes, else as it is."""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.as_posix()


def _oddities(opened: ImageFile) -> Iterable[tuple[Kind, str]]:
    """Asked before loading: only then does Pillow still tell how the file stores its pixels."""
    found: list[tuple[Kind, str]] = []
    mode = opened.mode
    if mode == "CMYK":
        found.append(("cmyk", "is CMYK; converted to RGB without a colour profile"))
    if mode in ("1", "L", "LA", "I", "F") or mode.startswith("I;16"):
        found.append(("grey", "is grey; scored as RGB of three equal channels"))
    if mode in ("I", "F") or mode.startswith("I;16") or any("16" in _raw_mode(tile) for tile in opened.tile):
        found.append(("16-bit", "has more than 8 bits a channel; reduced to 8"))
    if "A" in opened.getbands() or "transparency" in opened.info:
        found.append(("alpha", "has transparency; put on white"))
    # Cameras put a preview behind the picture and call the whole MPO: DreamBench has such files.
    if opened.format != "MPO" and _frames(opened) > 1:
        found.append(("animated", "has several frames; the first is scored"))
    return found


def _frames(opened: ImageFile) -> int:
    try:
        return getattr(opened, "n_frames", 1)
    except Exception:  # the first frame may be sound all the same, and it is the one that is scored
        return 1


def _raw_mode(tile) -> str:
    arguments = tile[3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""
