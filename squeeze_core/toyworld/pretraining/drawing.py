"""The tiny FLUX learns to paint from full captions, from nothing: rectified flow on the tiny VAE's latents.

As the real one it has a T5 of its own in front, here a tiny one that learns along. The MLLM takes T5's place in
stage 1; `beginning` lays the projector so that it starts from what T5 said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ... import flux as flux_model
from ...sigmas import sigmas as noise_levels
from ...training.draws import Draws
from ...training.task import Task
from .. import flux, scenes, vae
from .painter import COLOURS, PLACES, SHAPES, Painter, shown
from .pool import Pool
from .settings import FluxSettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

SAMPLING_STEPS = 24
_UPWARDS = 0.6


class DrawingTask(Task):
    """Rectified-flow loss on single scenes with their captions; a share of them without text.

    autoencoder: the trained VAE, frozen. words: the toy world's tokenizer. folder: for the latents of the pool
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
        self.pool = Pool(settings.pool, settings.seed, settings.world(), self.vae, folder)
        self._ids_of: dict[int, torch.Tensor] = {}
        self._shown_by: dict[int, torch.Tensor] = {}

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.vae.to(device)

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """numbers: of the pool. noise [b, 16, 16, 16], sigma [b], without: which have no text; shown
        [b, 64, features]: by the picture's tokens, see `painter.shown`.
        """
        settings, draws = self.settings, self.draws
        side = scenes.SIDE // flux_model.DOWNSCALE
        # In pictures as plain as these, colour and shape are decided where nearly all is noise; what is left when
        # little is, the VAE's decoder forgives. So a quarter lies above 0.95, a twelfth below 0.3.
        sigmas = [math.cos(math.pi / 2 * draws.spread("sigma", index)) ** _UPWARDS for index in indices]
        numbers = [draws.shuffled("pool", index, settings.pool) for index in indices]
        return {
            "numbers": numbers,
            "noise": torch.stack([draws.normal("noise", index, (16, side, side)) for index in indices]),
            "sigma": torch.tensor(sigmas, dtype=torch.float32),
            "without": [draws.chance("textless", index, settings.textless) for index in indices],
            "shown": torch.stack([self._shown_in_pool(number) for number in numbers]),
        }

    def loss(self, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        config = vae.TRAINED_CONFIG
        raw = torch.stack([self.pool.latents(number) for number in batch["numbers"]])
        latents = (raw.to(self.device, torch.float32) - config["shift_factor"]) * config["scaling_factor"]
        ids = [self._ids_of_pool(number) for number in batch["numbers"]]
        context, present = self._context(ids, batch["without"])
        noise, sigma = batch["noise"].to(self.device), batch["sigma"].to(self.device)
        at = sigma[:, None, None, None]
        predicted = self._velocity((1 - at) * latents + at * noise, sigma, context, present)
        errors = (predicted - (noise - latents)).square().flatten(1).mean(1)
        late = sigma < 0.5
        asked = self.module.asked(batch["shown"].to(self.device, torch.float32))
        numbers = {"late": float(errors[late].mean().detach()) if late.any() else 0.0}
        numbers |= {"drawn": float(errors.mean().detach())}
        numbers |= {name: float(loss.detach()) for name, loss in asked.items()}
        readouts = PLACES * asked["misplaced"] + SHAPES * asked["misshapen"] + COLOURS * asked["miscoloured"]
        return errors.mean() + readouts, numbers

    @torch.no_grad()
    def sample(self, step: int) -> dict[str, Image]:
        """Eight captions that are not trained on, painted; above them what they should show."""
        from PIL import Image

        wanted = [scenes.single(self.settings.seed + 1, i, self.settings.world()) for i in range(8)]
        painted = self.paint([one.caption for one in wanted], seed=0)
        rows = ([scenes.render(one.scene) for one in wanted], list(painted))
        return {"pictures": Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))}

    @torch.no_grad()
    def paint(
        self, captions: Sequence[str], seed: int, steps: int = SAMPLING_STEPS, cfg: float = 1.0
    ) -> np.ndarray:
        """[n, 128, 128, 3] uint8. cfg: of classifier-free guidance; 1 is none."""
        side = scenes.SIDE
        ids = [self._ids(caption) for caption in captions]
        context, present = self._context(ids, [False] * len(ids))
        empty, alone = self._context(ids, [True] * len(ids))
        noise = flux_model.seeded_noise(seed, len(ids), 16, side, side).to(self.device)

        def predict(step: int, latents: torch.Tensor) -> torch.Tensor:
            sigma = sigmas[step].expand(len(ids)).to(self.device)
            told = self._velocity(latents, sigma, context, present)
            if cfg == 1.0:
                return told
            untold = self._velocity(latents, sigma, empty, alone)
            return untold + cfg * (told - untold)

        sigmas = noise_levels("cosine", steps)
        latents = flux_model.euler(predict, noise, sigmas)
        config = vae.TRAINED_CONFIG
        decoded = self.vae.decode(latents / config["scaling_factor"] + config["shift_factor"]).sample
        return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def identity(self) -> dict[str, Any]:
        return {**self.settings.task_identity(), "vae": self.pool.vae_hash}

    def _velocity(
        self, latents: torch.Tensor, sigma: torch.Tensor, context: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        pooled = latents.new_zeros(1, flux.CONFIG["pooled_projection_dim"])
        heard = flux_model.Conditioning(context, pooled, self.settings.guidance, present=present)
        return flux_model.velocity(self.module.transformer, latents, sigma, heard)

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

    def _ids_of_pool(self, number: int) -> torch.Tensor:
        if number not in self._ids_of:
            self._ids_of[number] = self._ids(self.pool.caption(number))
        return self._ids_of[number]

    def _shown_in_pool(self, number: int) -> torch.Tensor:
        if number not in self._shown_by:
            self._shown_by[number] = shown(self.pool.scene(number))
        return self._shown_by[number]

    def _ids(self, caption: str) -> torch.Tensor:
        return torch.tensor(self.words(caption)["input_ids"])
