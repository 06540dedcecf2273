"""ComfyUI's IMAGE tensors as the pictures that the core takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from ..squeeze_core.images import to_picture

if TYPE_CHECKING:
    from PIL.Image import Image


def pictures(images: Mapping[str, torch.Tensor | None] | None) -> tuple[Image, ...]:
    """Growing inputs -> RGB pictures in order; a batch is several pictures. An alpha channel is put on white."""
    batches = [] if not images else [images[name] for name in sorted(images, key=_number)]
    return tuple(to_picture(image) for batch in batches if batch is not None for image in batch)


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[-1])
