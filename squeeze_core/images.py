"""Pictures between Pillow and tensors, one way for all: RGB, alpha on white, 0 to 1; masks of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .errors import SqueezeError

if TYPE_CHECKING:
    from PIL.Image import Image

# Where Pillow gives no 8-bit channels: what is white in them. Such values it would clip at 255.
_WHITE = 65535.0
_TENTH = 0.1  # of the range; less of it used may as well be 10 or 12 bits, which no file says
_LABELS = 16  # of 255: no soft mask is as dark as that all over, so such values are numbers of things
_COLOURED = 32  # of 255 between channels: more than JPEG does to a grey mask


def as_rgb(picture: Image) -> Image:
    """Any mode as 8-bit RGB. Transparency is put on white; 16-bit and float greys keep their range.

    Raises `SqueezeError` for values of no known range: not finite, negative or above 65535.
    """
    from PIL import Image

    if _is_wide(picture):
        grey = np.clip(np.floor(_wide(picture) * 255.999), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if _is_transparent(picture):
        picture = _rgba(picture)
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def as_mask(picture: Image) -> Image:
    """A mask of any mode as 8-bit grey, white at the subject; see `mask_to_tensor`."""
    from PIL import Image

    return Image.fromarray((_mask(picture) * 255).round().astype(np.uint8))


def to_tensor(picture: Image) -> torch.Tensor:
    """[height, width, 3] float32, 0 to 1."""
    return torch.from_numpy(np.asarray(as_rgb(picture)).astype(np.float32) / 255)


def mask_to_tensor(mask: Image) -> torch.Tensor:
    """[height, width] float32, 0 to 1, of a mask's brightness, scaled by the range of its type.

    Of a mask in one colour, as cut-out tools save it, the alpha channel. Of 0 and 1 alone, these. Raises
    `SqueezeError` for what could mean two things: colours, more than two labels, colour and alpha that disagree,
    16 bits of which less than a tenth is used.
    """
    return torch.from_numpy(_mask(mask))


def range_note(picture: Image) -> str | None:
    """A sentence when a picture of more than 8 bits is so dark that it may be of 10 or 12 bits; else None."""
    if not _is_wide(picture):
        return None
    most = float(_wide(picture).max(initial=0))
    if not 0 < most < _TENTH:
        return None
    return (
        f"uses {100 * most:.1f}% of its range: it is dark, or holds 10 or 12 bits in 16. If it looks too dark, "
        "save it as 8-bit"
    )


def to_picture(pixels: torch.Tensor) -> Image:
    """[height, width, 3 or 4], 0 to 1 -> RGB; values outside are clamped, alpha is put on white."""
    from PIL import Image

    pixels = on_white(pixels.detach().float().cpu())
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def on_white(pixels: torch.Tensor) -> torch.Tensor:
    """[..., 1, 3 or 4], 0 to 1 -> [..., 3]: grey becomes three equal channels, what alpha hides becomes white.

    Raises `SqueezeError` for another number of channels.
    """
    channels = pixels.shape[-1]
    if channels == 1:
        return pixels.expand(*pixels.shape[:-1], 3)
    if channels not in (3, 4):
        raise SqueezeError(
            f"The picture has {channels} channels; 1 (grey), 3 (RGB) or 4 (RGB and alpha) are known. "
            "Convert it to RGB."
        )
    if channels == 3:
        return pixels
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + (1 - alpha)


def _mask(picture: Image) -> np.ndarray:
    """[height, width] float32, 0 to 1."""
    if _is_wide(picture):
        values = _wide(picture)
        if picture.mode != "F":
            if _is_binary(np.asarray(picture)):
                return np.asarray(picture).astype(np.float32)
            if 0 < values.max(initial=0) < _TENTH:
                raise SqueezeError(
                    f"The mask uses {100 * values.max():.1f}% of the range of 16 bits: it holds 10 or 12 bits, or "
                    "labels. Save it as 8-bit, white at the subject."
                )
        return values.astype(np.float32)
    if _is_transparent(picture):
        return _alpha_mask(np.asarray(_rgba(picture)))
    return _grey_mask(np.asarray(picture.convert("RGB")))


def _alpha_mask(pixels: np.ndarray) -> np.ndarray:
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if alpha.min() == alpha.max() == 255:
        return _grey_mask(colours)
    visible = colours[alpha > 0]
    if visible.size == 0 or (np.ptp(visible, axis=0) <= 2).all():
        return alpha.astype(np.float32) / 255
    if alpha.min() == alpha.max() or np.abs(colours.astype(int) - alpha[..., None]).max() <= 2:
        return _grey_mask(colours)
    raise SqueezeError(
        "The mask's colours and its transparency both differ from place to place, so either could be the mask. "
        "Save one of them alone, as grey values, white at the subject."
    )


def _grey_mask(colours: np.ndarray) -> np.ndarray:
    if np.ptp(colours.astype(int), axis=-1).max(initial=0) > _COLOURED:
        raise SqueezeError(
            "The mask is in colour, and which colour is the subject cannot be told. Save it as grey values, "
            "white at the subject."
        )
    grey = colours.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    if _is_binary(grey.round()):
        return grey.round()
    if 0 < grey.max(initial=0) < _LABELS:
        raise SqueezeError(
            f"The mask holds values up to {grey.max():.0f} of 255: these look like numbers of several things. Save "
            "the one that is the subject as white."
        )
    return np.minimum(grey / 255, 1)


def _is_wide(picture: Image) -> bool:
    return picture.mode in ("I", "F") or picture.mode.startswith("I;")


def _wide(picture: Image) -> np.ndarray:
    """[height, width] float64, 0 to 1. A float picture's white is the least of 1, 255 and 65535 that it fits in."""
    values = np.asarray(picture).astype(np.float64)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not np.isfinite(values).all() or low < 0 or high > _WHITE:
        raise SqueezeError(
            f"Its values go from {low:g} to {high:g}, and what is white cannot be told. Save it as 8-bit."
        )
    if picture.mode != "F":
        return values / _WHITE
    return values / next(white for white in (1.0, 255.0, _WHITE) if high <= white)


def _is_transparent(picture: Image) -> bool:
    return "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info


def _rgba(picture: Image) -> Image:
    return (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")


def _is_binary(values: np.ndarray) -> bool:
    return bool(values.max(initial=0) == 1 and np.isin(values, (0, 1)).all())
