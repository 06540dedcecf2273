"""VAE latents of pictures, kept on disk: a picture is encoded once, however often it is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..files import read_kept, save_atomically
from ..flux.vae import encode_pixels

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

# Half the room of float32, and finer than bfloat16; raw latents lie within about 10.
STORED = torch.float16


@dataclass(frozen=True)
class Picture:
    """A picture on its way to latents.

    pixels: [1, H, W, 3] float, 0 to 1. key: of the cache. latents: [1, channels, H/8, W/8] raw, if they were there.
    """

    pixels: torch.Tensor
    key: str
    latents: torch.Tensor | None


class LatentCache:
    """A frozen VAE with a folder of what it made.

    The key covers the VAE's weights, the size and the very pixels, so a change of any makes a new entry.
    Entries are written aside and renamed; one that cannot be read is made again. Latents are the posterior's
    mode, rounded to float16 also without a folder, so that the cache changes nothing.
    """

    def __init__(self, vae: AutoencoderKL, folder: str | Path | None = None) -> None:
        self.vae = vae
        self.folder = None if folder is None else Path(folder).expanduser()
        self.vae_hash = weights_hash(vae.state_dict())

    def look_up(self, pixels: torch.Tensor) -> Picture:
        """Of pixels [1, H, W, 3], 0 to 1, on the CPU. From any thread; encodes nothing."""
        digest = hashlib.sha256(f"{self.vae_hash} {list(pixels.shape)}".encode())
        digest.update(pixels.to(torch.float32).contiguous().numpy().tobytes())
        key = digest.hexdigest()
        return Picture(pixels, key, self._read(key))

    @torch.no_grad()
    def latents(self, picture: Picture, device: torch.device) -> torch.Tensor:
        """[1, channels, H/8, W/8], raw, float32, on the device; encoded and kept where they were not there."""
        if picture.latents is not None:
            return picture.latents.to(device, non_blocking=True).float()
        with torch.autocast(device.type, enabled=False):
            encoded = encode_pixels(self.vae, picture.pixels, device).to(STORED)
        if self.folder is not None:
            save_atomically(self._path(picture.key), {"latents": encoded}, {})
        return encoded.float()

    def _read(self, key: str) -> torch.Tensor | None:
        return None if self.folder is None else read_kept(self._path(key), "latents")

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"


def weights_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """16 hex digits that tell weights apart, by name, shape and value; not by dtype."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
