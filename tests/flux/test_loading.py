"""FLUX and its VAE from folders and published files, as they lie on users' disks."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.flux.loading import load_flux, load_vae
from squeeze_core.flux.lora import apply_lora


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return toyworld.build(tmp_path_factory.mktemp("toyworld") / "world")


@pytest.fixture(scope="module")
def whole(paths, tmp_path_factory):
    """A diffusers pipeline's folder, with the parts that are needed here."""
    folder = tmp_path_factory.mktemp("FLUX.1-dev")
    shutil.copytree(paths.flux, folder / "transformer")
    shutil.copytree(paths.vae, folder / "vae")
    return folder


def published_vae(paths, folder):
    """The VAE's diffusers keys in the layout of ae.safetensors."""
    last = 3
    state = {}
    for key, tensor in load_file(paths.vae_file).items():
        key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
        key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
        key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", key)
        key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", key)
        key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
        key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if "mid_block.attentions.0" in key:
            key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("to_out.0", "proj_out")
            key = key.replace("group_norm", "norm").replace("to_", "")
            tensor = tensor[:, :, None, None] if key.endswith("weight") and "norm" not in key else tensor
        state[key] = tensor.contiguous()
    save_file(state, folder / "ae.safetensors")
    return folder / "ae.safetensors"


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_flux_is_the_same_from_folder_whole_folder_and_published_file(paths, whole):
    own = toyworld.load(paths.folder).transformer
    for path in (paths.flux, whole, paths.flux_file):
        loaded = load_flux(path)
        assert same(loaded, own) and loaded.config.guidance_embeds
        assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())


def test_a_published_file_is_mapped_not_copied(paths):
    """Loading must not double the memory of a 24 GB file: all but one small modulation lies in the file."""
    model = load_flux(paths.flux_file)
    block = model.transformer_blocks[0].attn
    query, key = block.to_q.weight, block.to_k.weight
    assert key.data_ptr() - query.data_ptr() == query.numel() * query.element_size()


def test_the_dtype_is_the_files_unless_asked(paths, tmp_path):
    assert load_flux(paths.flux).dtype == load_vae(paths.vae).dtype == torch.float32
    assert load_flux(paths.flux, "bf16").dtype == load_vae(paths.vae, "bf16").dtype == torch.bfloat16
    half = {key: tensor.bfloat16() for key, tensor in load_file(paths.flux_file).items()}
    save_file(half, tmp_path / "half.safetensors")
    assert load_flux(tmp_path / "half.safetensors").dtype == torch.bfloat16
    load_vae(paths.vae, "fp16").save_pretrained(tmp_path / "vae")
    assert load_vae(tmp_path / "vae").dtype == torch.float16


def test_eight_bit_weights_are_computed_with_in_bf16(paths, tmp_path):
    small = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in load_file(paths.flux_file).items()}
    save_file(small, tmp_path / "fp8.safetensors")
    loaded = load_flux(tmp_path / "fp8.safetensors")
    assert loaded.dtype == torch.bfloat16
    weight = toyworld.load(paths.folder).transformer.x_embedder.weight
    assert torch.equal(loaded.x_embedder.weight, weight.to(torch.float8_e4m3fn).bfloat16())


def test_the_vae_is_the_same_from_folder_whole_folder_and_published_file(paths, whole, tmp_path):
    own = toyworld.load(paths.folder).vae
    for path in (paths.vae, whole, paths.vae_file, published_vae(paths, tmp_path)):
        loaded = load_vae(path)
        assert same(loaded, own)
        assert (loaded.config.scaling_factor, loaded.config.shift_factor) == (0.3611, 0.1159)


def test_a_missing_model_is_answered_with_the_command_that_fetches_it(tmp_path):
    with pytest.raises(SqueezeError, match=r"hf download black-forest-labs/FLUX.1-dev.*non-commercial"):
        load_flux(tmp_path / "nothing")


def test_what_is_no_flux_is_refused_with_a_sentence(paths, tmp_path):
    (tmp_path / "flux.gguf").write_bytes(b"GGUF")
    (tmp_path / "short.safetensors").write_bytes(paths.flux_file.read_bytes()[:100_000])
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    state = load_file(paths.flux_file)
    del state["double_blocks.1.img_attn.proj.weight"]
    save_file(state, tmp_path / "hole.safetensors")
    for name, words in {
        "flux.gguf": "GGUF files work in ComfyUI",
        "short.safetensors": "truncated|cannot be read",
        "other.safetensors": "no whole FLUX",
        "hole.safetensors": "no whole FLUX",
    }.items():
        with pytest.raises(SqueezeError, match=words):
            load_flux(tmp_path / name)
    with pytest.raises(SqueezeError, match="AutoencoderKL"):
        load_flux(paths.vae)
    with pytest.raises(SqueezeError, match=r"no readable config\.json"):
        load_flux(tmp_path)


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused_and_flux_stays(paths, strength):
    toy = toyworld.load(paths.folder)
    before = {key: tensor.clone() for key, tensor in toy.transformer.state_dict().items()}
    for fuse in (True, False):
        with pytest.raises(SqueezeError, match="strength of the LoRA is"):
            apply_lora(toy.transformer, toy.adapter.lora, strength, fuse)
    after = toy.transformer.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_a_vae_of_another_model_is_refused_with_its_channels(paths, tmp_path):
    from diffusers import AutoencoderKL

    config = json.loads((paths.vae / "config.json").read_text())
    AutoencoderKL.from_config({**config, "latent_channels": 4}).save_pretrained(tmp_path)
    with pytest.raises(SqueezeError, match=r"4 latent channels.*16"):
        load_vae(tmp_path)
    with pytest.raises(SqueezeError, match="no VAE"):
        load_vae(paths.flux_file)
