"""What every stage is given beside its records: the config, and the build's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...draws import Draws
from ...errors import SqueezeError
from ...files import whole
from ..pictures import decoded
from .config import MusicConfig

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


@dataclass(frozen=True)
class Work:
    """Draws depend on the seed and a record's number, never on who works on it."""

    config: MusicConfig
    folder: Path
    names: tuple[str, ...]

    @property
    def draws(self) -> Draws:
        return Draws(self.config.seed)

    def keep(self, name: str, picture: Image) -> str:
        """Write a picture whole or not at all; its name below the folder."""
        with whole(self.folder / name) as temporary:
            picture.save(temporary)
        return name

    def keep_mask(self, name: str, mask: torch.Tensor) -> str:
        """[height, width] bool, as a picture of black and white."""
        from PIL import Image as pil

        return self.keep(name, pil.fromarray(mask.cpu().numpy().astype("uint8") * 255))

    def picture(self, name: str) -> Image:
        """Raises `SqueezeError` for one that is no longer there."""
        path = self.folder / name
        try:
            return decoded(path.read_bytes, str(path))
        except Exception as error:
            raise SqueezeError(f'"{path}" cannot be read ({error}). Build in a new folder.') from error

    def mask(self, name: str) -> torch.Tensor:
        import numpy as np
        import torch

        return torch.from_numpy(np.array(self.picture(name).convert("L"))) > 127
