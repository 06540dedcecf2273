"""Pictures to learn drawing from: their latents, made once by all processes together and kept on disk.

Singles    one scene with its full caption
Twins      one toy in two scenes, and a prompt that does not tell who it is
Trios      two toys in one scene and each in another, and a prompt that calls them by the numbers of these pictures
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...files import save_atomically
from ...training.latents import STORED, weights_hash
from .. import language, scenes

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

FILE = 64  # pictures a file
_BATCH = 32  # encoded at once
_KIND = "latents"
_CARRIED = 20


class Pool(ABC):
    """The first `size` samples of a seed: latents, what is said of them, and their scenes.

    autoencoder: frozen, where it shall compute. folder: where latents are kept, under a name that the VAE's
    weights and the first samples make; None keeps them in memory only.
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
        first = [self._drawn(number) for number in range(FILE)]  # of a seed, options, and the way they are drawn
        told = f"{self.vae_hash} {first}"
        self.folder = None if folder is None else folder / hashlib.sha256(told.encode()).hexdigest()[:16]
        self._files: dict[int, torch.Tensor] = {}
        self._samples: dict[int, tuple[tuple[scenes.Scene, ...], str]] = {}

    @abstractmethod
    def _drawn(self, number: int) -> tuple[tuple[scenes.Scene, ...], str]:
        """Scenes, the one to paint first, and what is said."""

    def fill(self, process: int = 0, processes: int = 1) -> None:
        """Encode what the folder lacks: of its files, every `processes`-th from `process` on."""
        if self.folder is not None:
            for file in range(process, -(-self.size // FILE), processes):
                self._file(file)

    def latents(self, number: int) -> torch.Tensor:
        """[scenes, 16, 16, 16] raw, float16, on the CPU."""
        return self._file(number // FILE)[number % FILE]

    def text(self, number: int) -> str:
        return self._sample(number)[1]

    def scenes_of(self, number: int) -> tuple[scenes.Scene, ...]:
        """The one to paint first."""
        return self._sample(number)[0]

    def _sample(self, number: int) -> tuple[tuple[scenes.Scene, ...], str]:
        if number not in self._samples:
            self._samples[number] = self._drawn(number)
        return self._samples[number]

    def _file(self, number: int) -> torch.Tensor:
        if number not in self._files:
            path = None if self.folder is None else self.folder / f"{number:05d}.safetensors"
            latents = None if path is None else _read(path)
            if latents is None:
                end = (number + 1) * FILE
                if path is None:
                    end = min(end, self.size)  # on disk whole files, so that a larger pool goes on with them
                shown = [self._drawn(i)[0] for i in range(number * FILE, end)]
                pictures = np.stack([scenes.render(scene) for each in shown for scene in each])
                latents = encoded(self.vae, pictures).unflatten(0, (len(shown), -1))
                if path is not None:
                    save_atomically(path, {_KIND: latents}, {})
            self._files[number] = latents
        return self._files[number]


class Singles(Pool):
    """Every other lone toy is introduced before the prompt, as an MLLM meets its picture before the prompt.

    One in twenty shows what toys carry, alone: what the reasoning case asks for.
    """

    def _drawn(self, number: int) -> tuple[tuple[scenes.Scene, ...], str]:
        if number % _CARRIED == 0:
            pair = scenes.pair(self.seed, number, replace(self.options, kinds=(("reasoning", 1.0),)))
            return (pair.target,), language.caption(pair.target, pair.told)
        single = scenes.single(self.seed, number, self.options)
        lone = len(single.scene.subjects) == 1 and single.scene.subjects[0].carries is None
        introduced = lone and number % 2 == 1
        return (single.scene,), (language.introduction(single.scene, single.told) if introduced else single.caption)


class Twins(Pool):
    """One in ten asks for what the toy carries, the reasoning case."""

    kinds: tuple[tuple[scenes.Kind, float], ...] = (("one", 0.9), ("reasoning", 0.1))

    def pair(self, number: int) -> scenes.Pair:
        return scenes.pair(self.seed, number, replace(self.options, kinds=self.kinds))

    def _drawn(self, number: int) -> tuple[tuple[scenes.Scene, ...], str]:
        pair = self.pair(number)
        return (pair.target, *pair.references), pair.prompt


class Trios(Twins):
    """Two toys together, from a picture of each."""

    kinds = (("several", 1.0),)


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
            parts.append(autoencoder.encode(pixels).latent_dist.mode().cpu())
    return torch.cat(parts).to(STORED)
