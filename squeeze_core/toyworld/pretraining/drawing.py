"""The tiny FLUX learns to paint from full captions, from nothing: rectified flow on the tiny VAE's latents.

As the real one it has a T5 of its own in front, here a tiny one that learns along. The MLLM takes T5's place in
stage 1; `beginning` lays the projector so that it starts from what T5 said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ... import flux as flux_model
from ...sigmas import sigmas as noise_levels
from ...training.draws import Draws
from ...training.task import Task
from .. import flux, scenes, tokenizer, vae
from .pool import Pool
from .settings import FluxSettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

SAMPLING_STEPS = 24
_UPWARDS = 0.6
_ROWS = scenes.SIDE // flux_model.DOWNSCALE // flux_model.PATCH  # of tokens, and columns
_FAST = 14  # of an axis' dimensions: seven pairs, the slowest of which turns by 0.14 a token
_PLACES = 0.3  # weight of their loss
_T5: dict[str, Any] = {
    "vocab_size": tokenizer.VOCABULARY,
    "d_model": flux.CONTEXT_WIDTH,
    "d_kv": 64,
    "d_ff": 2 * flux.CONTEXT_WIDTH,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "relative_attention_max_distance": 32,
}


class Painter(nn.Module):
    """FLUX, the text encoder in front of it, and what is asked of its first blocks while it learns.

    A FLUX has no table of positions: a token learns where it stands from rotary angles to text tokens at (0, 0).
    Two heads in five blocks hardly find that out from the picture's loss alone: after 4,000 steps every shape was
    one round blob at pure noise. Asked for row and column, they tell both in 99% of the tokens after 150 steps.
    """

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer
        self.text = text_encoder()
        width = flux.CONFIG["num_attention_heads"] * flux.CONFIG["attention_head_dim"]
        self.places = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * _ROWS)) for _ in transformer.transformer_blocks
        )
        self._said: dict[int, torch.Tensor] = {}
        for number, block in enumerate(transformer.transformer_blocks):
            block.register_forward_hook(partial(self._hear, number))

    def _hear(self, number: int, block: nn.Module, given: Any, made: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._said[number] = made[1]  # the picture's tokens

    def misplaced(self) -> torch.Tensor:
        """Cross-entropy of row and column of every token of the last picture, mean over tokens and blocks."""
        tokens = torch.cartesian_prod(torch.arange(_ROWS), torch.arange(_ROWS))
        losses = []
        for number, said in self._said.items():
            guess = self.places[number](said).unflatten(-1, (2, _ROWS))
            where = tokens.to(said.device).expand(len(said), -1, -1)
            losses.append(F.cross_entropy(guess.flatten(0, 2), where.flatten()))
        self._said.clear()
        return torch.stack(losses).mean()


def text_encoder() -> nn.Module:
    """A tiny T5 of random weights: ids [b, tokens] -> states as wide as FLUX's context."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(**_T5))


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
        _start(self.module.transformer)
        self.pool = Pool(settings.pool, settings.seed, settings.world(), self.vae, folder)
        self._ids_of: dict[int, torch.Tensor] = {}

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.vae.to(device)

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """numbers: of the pool. noise [b, 16, 16, 16], sigma [b], without: which have no text."""
        settings, draws = self.settings, self.draws
        side = scenes.SIDE // flux_model.DOWNSCALE
        # In pictures as plain as these, colour and shape are decided where nearly all is noise; what is left when
        # little is, the VAE's decoder forgives. So a quarter lies above 0.95, a twelfth below 0.3.
        sigmas = [math.cos(math.pi / 2 * draws.spread("sigma", index)) ** _UPWARDS for index in indices]
        return {
            "numbers": [draws.shuffled("pool", index, settings.pool) for index in indices],
            "noise": torch.stack([draws.normal("noise", index, (16, side, side)) for index in indices]),
            "sigma": torch.tensor(sigmas, dtype=torch.float32),
            "without": [draws.chance("textless", index, settings.textless) for index in indices],
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
        late, misplaced = sigma < 0.5, self.module.misplaced()
        numbers = {"late": float(errors[late].mean().detach()) if late.any() else 0.0}
        numbers |= {"drawn": float(errors.mean().detach()), "misplaced": float(misplaced.detach())}
        return errors.mean() + _PLACES * misplaced, numbers

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

    def _ids(self, caption: str) -> torch.Tensor:
        return torch.tensor(self.words(caption)["input_ids"])


@torch.no_grad()
def _start(transformer: FluxTransformer2DModel) -> None:
    """As diffusion transformers are begun: modulations and the last layer at zero."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            if (
                name.endswith(("norm.linear", "norm1.linear", "norm1_context.linear", "norm_out.linear"))
                or name == "proj_out"
            ):
                nn.init.zeros_(module.weight)
            elif name.startswith("time_text_embed"):
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith(("norm_q", "norm_k", "norm_added_q", "norm_added_k")):
            # Eight rows of tokens hardly turn but the fastest pairs of each axis: these begin with a louder voice.
            index, rows, _ = flux.CONFIG["axes_dims_rope"]
            for axis in (index, index + rows):
                module.weight[axis : axis + _FAST] = 2.0
