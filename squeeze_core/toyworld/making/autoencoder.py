"""The tiny VAE learns to give toy pictures back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ...draws import Draws
from ...training.task import Task
from .. import scenes, vae
from ..seeding import Gains, seeded
from .settings import VAESettings

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_SQUARED = 4.0  # finds the colours early; small errors hardly feel it
_CHANNELS = vae.CONFIG["latent_channels"]
_LOG_VARIANCE = -6.0  # of the posterior at the start: nearly no noise
_GAINS: Gains = (
    (r"norm.*weight", 1.0),
    (r"conv2\.weight", 0.1),  # resnets begin as little more than nothing
    (r"to_out", 0.1),
    (r"conv_out", 0.3),
    (r"conv", 0.58),  # the usual uniform start, of variance 1 / (3 fan in)
)


class VAETask(Task):
    """L1 on pixels and on their differences, squared error, a small KL; on squares cut out of single scenes.

    The decoder reads latents with noise on them. So no latent channel can be small and matter, and what FLUX
    paints need not be exact.
    """

    def __init__(self, settings: VAESettings, seed: int = 0) -> None:
        from diffusers import AutoencoderKL

        self.settings = settings
        self.draws = Draws(settings.seed)
        # Started as its layers start by themselves; the untrained toy world's weights are made to look busy.
        self.module: AutoencoderKL = seeded(lambda: AutoencoderKL(**vae.TRAINED_CONFIG), seed, _GAINS)
        self.module.requires_grad_(True)
        with torch.no_grad():
            self.module.encoder.conv_out.bias[_CHANNELS:] = _LOG_VARIANCE

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """pixels [b, 3, crop, crop] uint8, noise of their latents."""
        crop = self.settings.crop
        pixels, noise = [], []
        for index in indices:
            picture = scenes.render(scenes.single(self.settings.seed, index, self.settings.world()).scene)
            # Whole multiples of the latent's pixels are enough: scenes stand anywhere.
            top, left = (
                self.draws.integer(f"crop/{axis}", index, (scenes.SIDE - crop) // 8 + 1) * 8 for axis in ("y", "x")
            )
            pixels.append(torch.from_numpy(picture[top : top + crop, left : left + crop].copy()))
            noise.append(self.draws.normal("posterior", index, (_CHANNELS, crop // 8, crop // 8)))
        return {"pixels": torch.stack(pixels).permute(0, 3, 1, 2).contiguous(), "noise": torch.stack(noise)}

    def loss(self, batch: Any) -> tuple[torch.Tensor, dict[str, float]]:
        pixels = batch["pixels"].to(self.device).float() / 127.5 - 1
        posterior = self.module.encode(pixels).latent_dist
        # In parts of the latents' own spread: otherwise they would simply grow until the noise is nothing.
        added = self.settings.latent_noise * posterior.mean.std()
        spread = (posterior.var + added.square()).sqrt()
        decoded = self.module.decode(posterior.mean + spread * batch["noise"].to(self.device)).sample
        error = decoded - pixels
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        pixel_error = error.abs().mean()
        loss = pixel_error + _SQUARED * error.square().mean() + self.settings.edges * edges + self.settings.kl * kl
        return loss, {"l1": float(pixel_error.detach()), "edges": float(edges.detach()), "kl": float(kl.detach())}

    def sample(self, step: int) -> dict[str, Image.Image]:
        """Six pictures that are not trained on, above what comes back."""
        pictures = [scenes.render(scenes.single(self.settings.seed + 1, i).scene) for i in range(6)]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(self.device).float() / 127.5 - 1
        decoded = self.module.decode(self.module.encode(pixels).latent_dist.mode()).sample
        back = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return {"pictures": Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in (pictures, back)]))}

    def identity(self) -> dict[str, Any]:
        return self.settings.task_identity()


@torch.no_grad()
def at_flux_scale(state: dict[str, torch.Tensor], count: int = 64, seed: int = 1) -> dict[str, torch.Tensor]:
    """The same VAE with latents scaled so that (latent - shift) * scaling has a standard deviation of 1.

    Exact: the last convolution of the encoder is multiplied, the first of the decoder divided.
    """
    from diffusers import AutoencoderKL

    model = AutoencoderKL(**vae.TRAINED_CONFIG)
    model.load_state_dict(state)
    pictures = np.stack([scenes.render(scenes.single(seed, index).scene) for index in range(count)])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in pixels.split(8)])
    factor = float(1 / (vae.TRAINED_CONFIG["scaling_factor"] * latents.std()))
    result = {name: tensor.clone() for name, tensor in state.items()}
    for kind in ("weight", "bias"):
        result[f"encoder.conv_out.{kind}"][:_CHANNELS] *= factor
    # The noise of the posterior grows with its mean.
    result["encoder.conv_out.bias"][_CHANNELS:] += 2 * float(np.log(factor))
    result["decoder.conv_in.weight"] /= factor
    return result
