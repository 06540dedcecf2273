"""The tiny FLUX learns to paint from full captions, from nothing: rectified flow on the tiny VAE's latents.

As the real one it has a T5 of its own in front, here a tiny one that learns along. The MLLM takes T5's place in
stage 1; `beginning` lays the projector so that it starts from what T5 said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ...draws import Draws
from ...flux.conditioning import Conditioning
from ...flux.model import velocity
from ...flux.sampling import euler, seeded_noise
from ...flux.tokens import DOWNSCALE
from ...flux.vae import scale_latents, unscale_latents
from ...sigmas import sigmas as noise_levels
from ...training.task import Task
from .. import flux, scenes
from .painter import WEIGHTS, Painter, shown, whereabouts
from .pool import Pool, Singles, Trios, Twins, encoded
from .settings import FluxSettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

SAMPLING_STEPS = 24
_KINDS = ("", "twins_", "trios_")  # of samples, by how many pictures are in sight; before their numbers in the log
# Captions alone tell who is painted, and nothing is in sight with them.
_NEVER_ASKED = {"": ("unrecognised",), "twins_": ("misheard",), "trios_": ("misheard",)}
_SHOWN = 8  # samples of a kind on the sheet
_TOGETHER = 64  # samples in a row whose twins are all of one kind, so that a batch has two kinds and not three
_UPWARDS = 0.6


@dataclass(frozen=True)
class Batch:
    """Samples of one pool.

    latents: [b, scenes, 16, 16, 16] raw, the one to paint first. noise: [b, 16, 16, 16]. sigma: [b], 1 is noise.
    without: which have no text. shown: [b, 64, features], by the picture's tokens, see `painter.shown`.
    who: [b, scenes, toys, questions]. covered: [b, scenes, toys, 64], see `painter.whereabouts`.
    """

    latents: torch.Tensor
    texts: list[str]
    noise: torch.Tensor
    sigma: torch.Tensor
    without: list[bool]
    shown: torch.Tensor
    who: torch.Tensor
    covered: torch.Tensor


class DrawingTask(Task):
    """Rectified-flow loss on single scenes with their captions, and on twins; a share of both without text.

    A twin is painted from a prompt that does not tell who it is, with another picture of the same toy in sight as
    clean tokens. The real FLUX can repeat a subject across the panels of one picture before anybody trains it to
    (Huang et al., "In-Context LoRA for Diffusion Transformers", 2024); this one has to be taught.

    autoencoder: the trained VAE, frozen. words: the toy world's tokenizer. folder: for the latents of the pools
    that pictures are drawn from, see `Pool`.
    """

    module: Painter

    def __init__(
        self,
        settings: FluxSettings,
        autoencoder: AutoencoderKL,
        words: PreTrainedTokenizerBase,
        folder: Path | None = None,
    ) -> None:
        from diffusers import FluxTransformer2DModel

        self.settings, self.words = settings, words
        self.vae = autoencoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # faster on CPUs
        self.draws = Draws(settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.draws.integer("initial weights", 0, 2**62))
            self.module = Painter(FluxTransformer2DModel(**flux.CONFIG))
        world = settings.world()
        self.singles = Singles(settings.pool, settings.seed, world, self.vae, folder)
        self.twins = Twins(settings.twin_pool if settings.twins else 0, settings.seed, world, self.vae, folder)
        trios = settings.trio_pool if settings.twins and settings.trios else 0
        self.trios = Trios(trios, settings.seed, world, self.vae, folder)
        pools = zip(_KINDS, (self.singles, self.twins, self.trios))
        self.pools: dict[str, Pool] = {kind: pool for kind, pool in pools if pool.size}
        self._ids_of: dict[str, torch.Tensor] = {}
        self._truth_of: dict[tuple[Pool, int], tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.vae.to(device)

    def fill(self, process: int = 0, processes: int = 1) -> None:
        """Encode what the pools lack, as one of several processes."""
        for pool in self.pools.values():
            pool.fill(process, processes)

    def batch(self, indices: Sequence[int]) -> list[Batch]:
        """A batch for each kind of sample that there is."""
        chosen: dict[Pool, list[int]] = {}
        for index in indices:
            chosen.setdefault(self._pool(index), []).append(index)
        return [self._batch(pool, chosen[pool]) for pool in self.pools.values() if pool in chosen]

    def _pool(self, index: int) -> Pool:
        """Where a sample comes from."""
        if not self.draws.chance("twins", index, self.settings.twins):
            return self.singles
        return self.trios if self.draws.chance("trios", index // _TOGETHER, self.settings.trios) else self.twins

    def _batch(self, pool: Pool, indices: Sequence[int]) -> Batch:
        settings, draws = self.settings, self.draws
        side = scenes.SIDE // DOWNSCALE
        # In pictures as plain as these, colour and shape are decided where nearly all is noise; what is left when
        # little is, the VAE's decoder forgives. So a quarter lies above 0.95, a twelfth below 0.3.
        sigmas = [math.cos(math.pi / 2 * draws.spread("sigma", index)) ** _UPWARDS for index in indices]
        numbers = [draws.shuffled("pool", index, pool.size) for index in indices]
        features, who, covered = (torch.stack(each) for each in zip(*(self._truth(pool, i) for i in numbers)))
        textless = settings.textless if pool is self.singles else settings.twins_textless
        return Batch(
            latents=torch.stack([pool.latents(number) for number in numbers]),
            texts=[pool.text(number) for number in numbers],
            noise=torch.stack([draws.normal("noise", index, (16, side, side)) for index in indices]),
            sigma=torch.tensor(sigmas, dtype=torch.float32),
            without=[draws.chance("textless", index, textless) for index in indices],
            shown=features,
            who=who,
            covered=covered,
        )

    def loss(self, batch: list[Batch]) -> tuple[torch.Tensor, dict[str, float]]:
        total = sum(len(part.texts) for part in batch)
        losses: list[torch.Tensor] = []
        # Every process logs every number, also of a kind of which its share of the batch has none.
        numbers = {
            f"{kind}{name}": 0.0
            for kind in self.pools
            for name in ("drawn", *WEIGHTS)
            if name not in _NEVER_ASKED[kind]
        }
        for part in batch:
            errors, asked = self._errors(part)
            readouts = sum(WEIGHTS[name] * loss for name, loss in asked.items())
            losses.append(len(part.texts) / total * (errors + readouts))
            kind = _KINDS[part.latents.shape[1] - 1]
            measured = {f"{kind}{name}": float(loss.detach()) for name, loss in {"drawn": errors, **asked}.items()}
            numbers |= {name: loss for name, loss in measured.items() if name in numbers}
        return torch.stack(losses).sum(), numbers

    def _errors(self, part: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean square error of the velocity, and the losses of the readouts."""
        picture, *twin = scale_latents(self.vae, part.latents.to(self.device, torch.float32)).unbind(1)
        context, present = self._context([self._ids(text) for text in part.texts], part.without)
        noise, sigma = part.noise.to(self.device), part.sigma.to(self.device)
        at = sigma[:, None, None, None]
        noisy = (1 - at) * picture + at * noise
        predicted = self._velocity(noisy, sigma, context, present, tuple(twin))
        truth = (each.to(self.device) for each in (part.shown.float(), part.who, part.covered))
        asked = self.module.asked(*truth)
        untold = [bool(twin) or without for without in part.without]
        asked["misheard"] = self.module.misheard(context, present, part.who[:, 0].to(self.device), untold)
        return (predicted - (noise - picture)).square().mean(), asked

    @torch.no_grad()
    def sample(self, step: int) -> dict[str, Image]:
        """What is not trained on, painted: eight captions, above them what they should show; and twins and trios,
        above them the pictures that were in sight.
        """
        from PIL import Image

        world, seed = self.settings.world(), self.settings.seed + 1
        wanted = [scenes.single(seed, i, world) for i in range(_SHOWN)]
        painted = self.paint([one.caption for one in wanted], seed=0)
        rows = [np.stack([scenes.render(one.scene) for one in wanted]), painted]
        for pool in self.pools.values():
            if isinstance(pool, Twins):
                pairs = [type(pool)(_SHOWN, seed, world, self.vae).pair(i) for i in range(_SHOWN)]
                seen = [
                    np.stack(each)
                    for each in zip(*([scenes.render(one) for one in pair.references] for pair in pairs))
                ]
                rows += [*seen, self.paint([pair.prompt for pair in pairs], seed=0, seen=seen)]
        return {"pictures": Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows]))}

    @torch.no_grad()
    def paint(
        self,
        captions: Sequence[str],
        seed: int,
        steps: int = SAMPLING_STEPS,
        cfg: float = 1.0,
        seen: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Pictures [n, 128, 128, 3] uint8. cfg: of classifier-free guidance; 1 is none. seen: those in sight, of
        the same shape, first all first ones.
        """
        side = scenes.SIDE
        ids = [self._ids(caption) for caption in captions]
        context, present = self._context(ids, [False] * len(ids))
        empty, alone = self._context(ids, [True] * len(ids))
        noise = seeded_noise(seed, len(ids), 16, side, side).to(self.device)
        clean = tuple(
            scale_latents(self.vae, encoded(self.vae, each).to(self.device, torch.float32)) for each in seen
        )

        def predict(step: int, latents: torch.Tensor) -> torch.Tensor:
            sigma = sigmas[step].expand(len(ids)).to(self.device)
            told = self._velocity(latents, sigma, context, present, clean)
            if cfg == 1.0:
                return told
            untold = self._velocity(latents, sigma, empty, alone)
            return untold + cfg * (told - untold)

        sigmas = noise_levels("cosine", steps)
        latents = euler(predict, noise, sigmas)
        decoded = self.vae.decode(unscale_latents(self.vae, latents)).sample
        return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def identity(self) -> dict[str, Any]:
        return {**self.settings.task_identity(), "vae": self.singles.vae_hash}

    def _velocity(
        self,
        latents: torch.Tensor,
        sigma: torch.Tensor,
        context: torch.Tensor,
        present: torch.Tensor,
        twins: tuple[torch.Tensor, ...] = (),
    ) -> torch.Tensor:
        pooled = latents.new_zeros(1, flux.CONFIG["pooled_projection_dim"])
        heard = Conditioning(
            context, pooled, self.settings.guidance, references=twins, placement="index", present=present
        )
        return velocity(self.module.transformer, latents, sigma, heard)

    def _context(
        self, captions: Sequence[torch.Tensor], without: Sequence[bool]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded captions [b, longest, width], padded, and which tokens are theirs [b, longest]."""
        lengths = [1 if none else len(one) for one, none in zip(captions, without)]
        longest = max(lengths)
        ids = torch.stack([F.pad(one, (0, max(0, longest - len(one))))[:longest] for one in captions])
        heard = ~torch.tensor(without)
        tokens = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        context = self.module.text(
            input_ids=ids.to(self.device), attention_mask=tokens.to(self.device)
        ).last_hidden_state
        context = context * (tokens & heard[:, None])[..., None].to(self.device)
        return context, tokens.to(self.device)

    def _truth(self, pool: Pool, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a sample's tokens show, who is in its pictures, and where."""
        if (pool, number) not in self._truth_of:
            seen = pool.scenes_of(number)
            who, covered = (torch.stack(each) for each in zip(*(whereabouts(scene) for scene in seen)))
            self._truth_of[pool, number] = shown(seen[0]), who, covered
        return self._truth_of[pool, number]

    def _ids(self, text: str) -> torch.Tensor:
        if text not in self._ids_of:
            self._ids_of[text] = torch.tensor(self.words(text)["input_ids"])
        return self._ids_of[text]
