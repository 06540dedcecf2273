"""Pictures between Pillow and tensors, one way for all: RGB, alpha on white, 0 to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL.Image import Image


def as_rgb(picture: Image) -> Image:
    """Any mode as 8-bit RGB. Transparency is put on white; 16-bit and float greys keep their range."""
    from PIL import Image

    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        # Pillow would clip such values at 255, which makes nearly everything white.
        values = np.asarray(picture).astype(np.float64)
        largest = 1.0 if picture.mode == "F" and values.max(initial=0) <= 1 else 65535.0
        grey = np.clip(np.floor(values / largest * 255.999), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def to_tensor(picture: Image) -> torch.Tensor:
    """[height, width, 3] float32, 0 to 1."""
    return torch.from_numpy(np.asarray(as_rgb(picture)).astype(np.float32) / 255)


def mask_to_tensor(mask: Image) -> torch.Tensor:
    """[height, width] float32, 0 to 1, of a mask's brightness."""
    return torch.from_numpy(np.asarray(mask.convert("L")).astype(np.float32) / 255)


def to_picture(pixels: torch.Tensor) -> Image:
    """[height, width, 3 or 4], 0 to 1 -> RGB; values outside are clamped, alpha is put on white."""
    from PIL import Image

    pixels = on_white(pixels.detach().float().cpu())
    return Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def on_white(pixels: torch.Tensor) -> torch.Tensor:
    """[..., 3 or 4], 0 to 1 -> [..., 3]: what an alpha channel hides becomes white."""
    if pixels.shape[-1] != 4:
        return pixels
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + (1 - alpha)
