"""Pictures to learn drawing from: their latents, made once by all processes together and kept on disk."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...files import save_atomically
from ...training.latents import STORED, weights_hash
from .. import scenes

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FILE = 64  # pictures a file
_BATCH = 32  # encoded at once
_KIND = "latents"


class Pool:
    """The first `size` single scenes of a seed, as raw latents and captions.

    autoencoder: frozen, where it shall compute. folder: where latents are kept, under a name that the VAE's
    weights, the seed and the world's options make; None keeps them in memory only.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        options: scenes.WorldOptions,
        autoencoder: AutoencoderKL,
        folder: Path | None = None,
    ) -> None:
        self.size, self.seed, self.options, self.vae = size, seed, options, autoencoder
        self.vae_hash = weights_hash(autoencoder.state_dict())
        told = json.dumps([self.vae_hash, seed, asdict(options)], sort_keys=True)
        self.folder = None if folder is None else folder / hashlib.sha256(told.encode()).hexdigest()[:16]
        self._files: dict[int, torch.Tensor] = {}

    def fill(self, process: int = 0, processes: int = 1) -> None:
        """Encode what the folder lacks: of its files, every `processes`-th from `process` on."""
        if self.folder is not None:
            for file in range(process, -(-self.size // FILE), processes):
                self._file(file)

    def latents(self, number: int) -> torch.Tensor:
        """[16, 16, 16] raw, float16, on the CPU."""
        return self._file(number // FILE)[number % FILE]

    def caption(self, number: int) -> str:
        return scenes.single(self.seed, number, self.options).caption

    def scene(self, number: int) -> scenes.Scene:
        return scenes.single(self.seed, number, self.options).scene

    def _file(self, number: int) -> torch.Tensor:
        if number not in self._files:
            path = None if self.folder is None else self.folder / f"{number:05d}.safetensors"
            latents = None if path is None else _read(path)
            if latents is None:
                end = (number + 1) * FILE
                if path is None:
                    end = min(end, self.size)  # on disk whole files, so that a larger pool goes on with them
                within = range(number * FILE, end)
                pictures = [scenes.render(scenes.single(self.seed, i, self.options).scene) for i in within]
                latents = encoded(self.vae, np.stack(pictures))
                if path is not None:
                    save_atomically(path, {_KIND: latents}, {})
            self._files[number] = latents
        return self._files[number]


def _read(path: Path) -> torch.Tensor | None:
    """None for a file that is not there or broken: it is made again."""
    try:
        return load_file(path)[_KIND]
    except (OSError, SafetensorError, KeyError):
        return None


@torch.no_grad()
def encoded(autoencoder: AutoencoderKL, pictures: np.ndarray) -> torch.Tensor:
    """[n, 128, 128, 3] uint8 -> raw latents [n, 16, 16, 16], float16, on the CPU."""
    vae_device = autoencoder.device
    parts = []
    for part in torch.from_numpy(pictures).split(_BATCH):
        pixels = part.permute(0, 3, 1, 2).to(vae_device).float() / 127.5 - 1
        with torch.autocast(vae_device.type, enabled=False):
            parts.append(autoencoder.encode(pixels).latent_dist.mode().to("cpu", STORED))
    return torch.cat(parts)
