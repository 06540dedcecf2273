"""CLIP-L's pooled vector: as FLUX hears it in diffusers, for adapters that ask for it."""

import json

import pytest
import torch
from diffusers import FluxPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from squeeze_core import adapter as adapter_file
from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.flux import clip
from squeeze_core.generation import GenerationSettings
from squeeze_core.pipeline import SqueezePipeline

from .. import clip_text

PROMPTS = ["a photo of a toy", "a long prompt, " * 30, ""]


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return clip_text.write(tmp_path_factory.mktemp("clip") / "FLUX.1-dev")


def test_the_vector_is_the_one_that_diffusers_gives_flux(flux):
    tokenizer = CLIPTokenizer.from_pretrained(flux / "tokenizer")
    model = CLIPTextModel.from_pretrained(flux / "text_encoder")
    theirs = FluxPipeline(None, None, model, tokenizer, None, None, None)
    expected = theirs._get_clip_prompt_embeds(PROMPTS, device="cpu")
    found = clip.load(flux).encode(PROMPTS)
    assert found.shape == (3, 768) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert (found[0] - found[1]).abs().max() > 0.1, "prompts differ"


def test_a_folder_of_clip_itself_is_read_too(flux, tmp_path):
    for part in ("text_encoder", "tokenizer"):
        for path in (flux / part).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert torch.equal(clip.load(tmp_path).encode(PROMPTS), clip.load(flux).encode(PROMPTS))


def test_a_wrong_folder_gives_one_sentence_with_the_command_that_helps(flux, tmp_path):
    with pytest.raises(SqueezeError, match=r"cannot be loaded.*hf download"):
        clip.load(tmp_path / "nowhere")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 8}))
    with pytest.raises(SqueezeError, match='kind "t5" and no CLIP'):
        clip.load(other)
    from safetensors.torch import load_file, save_file

    part = clip_text.write(tmp_path / "part")
    file = part / "text_encoder" / "model.safetensors"
    state = load_file(file)
    lost = next(name for name in state if name.endswith("layers.0.mlp.fc1.weight"))
    save_file({name: tensor for name, tensor in state.items() if name != lost}, file, {"format": "pt"})
    with pytest.raises(SqueezeError, match=r"lacks .*mlp\.fc1\.weight"):
        clip.load(part)
    file.write_bytes(b"no tensors")
    with pytest.raises(SqueezeError, match=r"cannot be loaded.*hf download"):
        clip.load(part)
    narrow = clip.load(clip_text.write(tmp_path / "narrow", width=64))
    with pytest.raises(SqueezeError, match=r"vectors of 64 and FLUX takes 768"):
        narrow.check_width(768)


def test_an_adapter_that_asks_for_it_hears_the_prompt_by_it(flux, tmp_path):
    """From files, with CLIP where the whole of FLUX lies; beside one file of FLUX it must be given."""
    paths = toyworld.build(tmp_path / "toy", 1)
    own = adapter_file.load(paths.adapter)
    asking = tmp_path / "asking.safetensors"
    config = own.config.model_copy(update={"pooled": "clip_l"})
    adapter_file.save(asking, config, own.aggregator.state_dict(), own.lora)
    with pytest.raises(SqueezeError, match="CLIP-L with its tokenizer"):
        SqueezePipeline.from_files(paths.flux_file, paths.vae, paths.mllm, asking, device="cpu")
    whole = tmp_path / "FLUX"
    whole.mkdir()
    for part, folder in (("transformer", paths.flux), ("vae", paths.vae)):
        (whole / part).symlink_to(folder)
    for part in ("text_encoder", "tokenizer"):
        (whole / part).symlink_to(flux / part)
    settings = GenerationSettings(height=64, width=64, steps=2, long_side=48)
    prompt = "the star of picture 1"
    beside = SqueezePipeline.from_files(
        paths.flux_file, paths.vae, paths.mllm, asking, clip=flux, device="cpu", offload=True
    )
    latents = beside.generate(prompt, settings=settings).latents
    inside = SqueezePipeline.from_files(whole, None, paths.mllm, asking, device="cpu")
    torch.testing.assert_close(inside.generate(prompt, settings=settings).latents, latents)
    vector = clip.load(flux).encode([prompt])
    torch.testing.assert_close(inside.generate(prompt, settings=settings, pooled=vector).latents, latents)
    plain = SqueezePipeline.from_files(paths.flux_file, paths.vae, paths.mllm, paths.adapter, device="cpu")
    assert plain.clip is None and not torch.equal(plain.generate(prompt, settings=settings).latents, latents)
