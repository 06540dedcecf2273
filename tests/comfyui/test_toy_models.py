"""The toy world in ComfyUI: its stock loaders read the files, and compute what diffusers computes."""

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file

from squeeze_core import toyworld


@pytest.fixture(scope="module")
def toy_paths(tmp_path_factory):
    return toyworld.build(tmp_path_factory.mktemp("toyworld") / "world")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_stock_loader_reads_the_toy_flux_and_matches_diffusers(comfy, toy_paths):
    import comfy.sd
    from diffusers import FluxTransformer2DModel

    patcher = comfy.sd.load_diffusion_model(str(toy_paths.flux_file))
    comfy.model_management.load_models_gpu([patcher])
    own = FluxTransformer2DModel.from_pretrained(toy_paths.flux, local_files_only=True)
    latent, context, pooled = random(1, 16, 16, 24), random(1, 20, 256, seed=1), random(1, 768, seed=2)
    ids = torch.zeros(8, 12, 3)
    ids[..., 1] = torch.arange(8)[:, None]
    ids[..., 2] = torch.arange(12)
    with torch.no_grad():
        theirs = patcher.model.diffusion_model(latent, torch.tensor([0.7]), context, pooled, torch.tensor([2.5]))
        ours = own(
            hidden_states=rearrange(latent, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2),
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=torch.tensor([0.7]),
            img_ids=ids.flatten(0, 1),
            txt_ids=torch.zeros(20, 3),
            guidance=torch.tensor([2.5]),
            return_dict=False,
        )[0]
    ours = rearrange(ours, "b (h w) (c p q) -> b c (h p) (w q)", p=2, q=2, h=8)
    assert (ours - theirs).abs().max() < 5e-6 * theirs.abs().max()


def test_the_toy_vae_encodes_and_decodes_alike(pack, toy_paths):
    from diffusers import AutoencoderKL

    own = AutoencoderKL.from_pretrained(toy_paths.vae, local_files_only=True)
    vae = pack("nodes.toy_vae").load(toy_paths.vae_file)
    pixels = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(3))
    latent = vae.encode(pixels)
    with torch.no_grad():
        expected = own.encode(pixels.movedim(-1, 1) * 2 - 1).latent_dist.mode()
        decoded = own.decode(latent).sample.movedim(1, -1) / 2 + 0.5
    assert latent.shape == (1, 16, 8, 12)
    assert (latent - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (vae.decode(latent) - decoded.clamp(0, 1)).abs().max() < 1e-5


def test_the_adapters_lora_goes_through_the_stock_lora_loader(comfy, toy_paths):
    import comfy.sd

    patcher = comfy.sd.load_diffusion_model(str(toy_paths.flux_file))
    lora = {k: v for k, v in load_file(toy_paths.adapter).items() if k.startswith("transformer.")}
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    # Two fused qkv and two output maps in each of 2 double blocks, one fused map in each of 3 single ones.
    assert len(patched.patches) == 2 * 4 + 3
    assert sum(len(patches) for patches in patched.patches.values()) == len(lora) // 2
