import pytest
import torch

from squeeze_core.training.latents import LatentCache
from squeeze_core.training.loop import Trainer

from . import tiny
from .test_loop import same, saved

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(models):
    from squeeze_core.flux.loading import load_vae

    return load_vae(models / "vae", "fp32")


def pixels(seed=0, height=64, width=48):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


def entries(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_a_kept_latent_is_the_one_that_was_made(tmp_path, vae):
    cache, without = LatentCache(vae, tmp_path), LatentCache(vae)
    made = cache.latents(cache.look_up(pixels()), CPU)
    found = cache.look_up(pixels())
    assert found.latents is not None and len(entries(tmp_path)) == 1
    assert torch.equal(cache.latents(found, CPU), made)
    assert torch.equal(without.latents(without.look_up(pixels()), CPU), made)
    exact = vae.encode(pixels().movedim(-1, 1) * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(made, exact, rtol=1e-3, atol=1e-3)


def test_a_kept_latent_is_not_made_again(tmp_path, vae, monkeypatch):
    cache = LatentCache(vae, tmp_path)
    cache.latents(cache.look_up(pixels()), CPU)
    monkeypatch.setattr(vae, "encode", None)
    cache.latents(LatentCache(vae, tmp_path).look_up(pixels()), CPU)


def test_another_picture_size_or_vae_has_another_key(tmp_path, vae):
    import copy

    other = copy.deepcopy(vae)
    other.encoder.conv_in.bias.data[0] += 1e-3
    wide = pixels().reshape(1, 48, 64, 3)
    keys = {
        LatentCache(vae).look_up(pixels()).key,
        LatentCache(vae).look_up(pixels(1)).key,
        LatentCache(vae).look_up(wide).key,
        LatentCache(other).look_up(pixels()).key,
    }
    assert len(keys) == 4


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_entry_is_made_again(tmp_path, vae, damage):
    cache = LatentCache(vae, tmp_path)
    made = cache.latents(cache.look_up(pixels()), CPU)
    (path,) = entries(tmp_path)
    path.write_bytes(path.read_bytes()[:-7] if damage is None else damage)
    found = cache.look_up(pixels())
    assert found.latents is None
    assert torch.equal(cache.latents(found, CPU), made)
    assert cache.look_up(pixels()).latents is not None


def test_training_with_and_without_kept_latents_is_the_same(tmp_path, models, uno):
    from squeeze_core.training.build import squeeze_task
    from squeeze_core.training.config_files import parse_config

    for run, folder in (
        ("without", None),
        ("with", str(tmp_path / "latents")),
        ("again", str(tmp_path / "latents")),
    ):
        config = parse_config(tiny.config_values(models, uno, latent_cache=folder))
        Trainer(squeeze_task(config), config, tmp_path / run).run()
    assert entries(tmp_path / "latents")
    assert same(saved(tmp_path / "with"), saved(tmp_path / "without"))
    assert same(saved(tmp_path / "again"), saved(tmp_path / "without"))
