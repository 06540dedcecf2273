"""ComfyUI's IMAGE tensors and the pictures that the core takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image


def pictures(images: Mapping[str, torch.Tensor | None] | None) -> tuple[Image.Image, ...]:
    """Growing inputs -> RGB pictures in order; a batch is several pictures. An alpha channel is put on white."""
    batches = [] if not images else [images[name] for name in sorted(images, key=_number)]
    return tuple(to_pil(image) for batch in batches if batch is not None for image in batch)


def to_pil(image: torch.Tensor) -> Image.Image:
    """[height, width, 3 or 4], 0 to 1 -> RGB."""
    image = image.detach().float().cpu()
    if image.shape[-1] == 4:
        alpha = image[..., 3:]
        image = image[..., :3] * alpha + (1 - alpha)
    pixels = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """A picture -> IMAGE [1, height, width, 3], 0 to 1."""
    return torch.from_numpy(np.asarray(picture.convert("RGB")).astype(np.float32) / 255)[None]


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[-1])
