"""ComfyUI's IMAGE tensors as the pictures that the core takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.images import to_picture
from .sockets import MAX_PICTURES

if TYPE_CHECKING:
    from PIL.Image import Image


def pictures(
    images: Mapping[str, torch.Tensor | None] | None, unknown: Mapping[str, Any] | None = None
) -> tuple[Image, ...]:
    """Growing inputs -> RGB pictures in order; a batch is several pictures. An alpha channel is put on white.

    unknown: what the node was given beside its inputs; the server passes on a link to a socket that is not there.
    Raises `SqueezeError` if there is any.
    """
    nested = [name for name, value in (images or {}).items() if not isinstance(value, torch.Tensor | None)]
    if unknown or nested:
        wrong = ", ".join(unknown or ("images that holds pictures itself",))
        raise SqueezeError(
            f"There is no input {wrong}. Pictures go into images.picture_1 to images.picture_{MAX_PICTURES}; for "
            "more of them connect a batch."
        )
    batches = [] if not images else [images[name] for name in sorted(images, key=_number)]
    return tuple(to_picture(image) for batch in batches if batch is not None for image in batch)


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[-1])
