from types import SimpleNamespace

import torch

from squeeze_core import toyworld
from squeeze_core.flux.vae import decode_latents, encode_pixels, scale_latents, unscale_latents

CPU = torch.device("cpu")


def test_scaled_latents_are_those_that_flux_was_trained_on_and_scale_back():
    vae = SimpleNamespace(config=SimpleNamespace(shift_factor=0.1159, scaling_factor=0.3611))
    raw = torch.tensor([0.1159, 1.1159])
    assert torch.allclose(scale_latents(vae, raw), torch.tensor([0.0, 0.3611]))
    assert torch.allclose(unscale_latents(vae, scale_latents(vae, raw)), raw)


@torch.no_grad()
def test_a_picture_comes_back_from_the_vae_upright_and_in_its_colours():
    vae = toyworld.load().vae
    pixels = torch.full((1, 64, 96, 3), 0.2)
    pixels[:, :32, :, 0] = 0.8  # red above
    latents = encode_pixels(vae, pixels, CPU)
    assert latents.shape == (1, 16, 8, 12)
    back = decode_latents(vae, latents, CPU)
    assert back.shape == pixels.shape
    assert back[:, :24, :, 0].mean() > 0.6 > 0.4 > back[:, 40:, :, 0].mean()
