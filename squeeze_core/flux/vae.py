"""FLUX's VAE: pixels to latents and back, and the scale in which FLUX sees latents.

Raw latents are what the VAE gives and takes; scaled ones, (raw - shift) * scale, are what FLUX was trained on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def encode_pixels(vae: AutoencoderKL, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """[batch, H, W, 3] pixels, 0 to 1 -> [batch, channels, H/8, W/8] raw: the posterior's mode, in the VAE's dtype.

    device: where the VAE is.
    """
    return vae.encode((pixels.movedim(-1, 1) * 2 - 1).to(device, vae.dtype)).latent_dist.mode()


def decode_latents(vae: AutoencoderKL, latents: torch.Tensor, device: torch.device) -> torch.Tensor:
    """[batch, channels, h, w] raw -> [batch, 8h, 8w, 3] pixels, float32; what is above 1 or below 0 is not cut."""
    return vae.decode(latents.to(device, vae.dtype)).sample.float().movedim(1, -1) / 2 + 0.5


def scale_latents(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Raw latents -> those that FLUX sees."""
    return (latents - vae.config.shift_factor) * vae.config.scaling_factor


def unscale_latents(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """What FLUX gives -> raw latents."""
    return latents / vae.config.scaling_factor + vae.config.shift_factor
