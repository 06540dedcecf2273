"""The toy models: the real architectures, read by the real libraries, with every part in use."""

import copy

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from squeeze_core import toyworld
from squeeze_core.errors import SqueezeError
from squeeze_core.flux import layouts as bfl
from squeeze_core.mllm import Prompt
from squeeze_core.toyworld import flux, folding, world
from squeeze_core.toyworld import mllm as toy_mllm

from .conftest import UNTRAINED


def picture(seed: int = 0) -> Image.Image:
    pixels = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(seed))
    return Image.fromarray((pixels.permute(1, 2, 0) * 255).to(torch.uint8).numpy())


def velocity(transformer, tokens=64, context=None, pooled=None, sigma=0.7, guidance=2.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(tokens, 3)
    ids[:, 2] = torch.arange(tokens)
    context = torch.randn(1, 20, 256, generator=generator) if context is None else context
    with torch.no_grad():
        return transformer(
            hidden_states=torch.randn(1, tokens, 64, generator=generator),
            encoder_hidden_states=context,
            pooled_projections=torch.zeros(1, 768) if pooled is None else pooled,
            timestep=torch.tensor([sigma]),
            img_ids=ids,
            txt_ids=torch.zeros(context.shape[1], 3),
            guidance=torch.tensor([guidance]),
            return_dict=False,
        )[0]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_all_parts_together_fit_in_24_megabytes_of_bf16(toy):
    parts = [toy.transformer, toy.vae, toy.mllm.model, toy.adapter.aggregator]
    numbers = sum(p.numel() for part in parts for p in part.parameters())
    numbers += sum(tensor.numel() for tensor in toy.adapter.lora.values())
    assert numbers * 2 <= 24e6


def test_no_tensor_is_zero_so_every_path_is_really_used(toy):
    for part in (toy.transformer, toy.vae, toy.mllm.model, toy.adapter.aggregator):
        for name, parameter in part.named_parameters():
            assert parameter.abs().max() > 0 and torch.isfinite(parameter).all(), name
    assert all(tensor.abs().max() > 0 for tensor in toy.adapter.lora.values())


def test_the_toy_world_says_that_it_is_untrained(toy):
    assert toy.trained is False and toy.adapter.config.trained_by == ""
    assert "untrained" in toy.notice and "untrained" not in toyworld.NOTICES[True]
    assert '"trained": false' in (toy.paths.folder / "manifest.json").read_text()


def test_velocity_is_about_as_large_as_noise_and_answers_to_every_input(toy):
    base = velocity(toy.transformer)
    assert 0.3 < base.std() < 3
    changed = {
        "context": velocity(toy.transformer, context=torch.zeros(1, 1, 256)),
        "pooled": velocity(toy.transformer, pooled=torch.ones(1, 768)),
        "sigma": velocity(toy.transformer, sigma=0.6),
        "guidance": velocity(toy.transformer, guidance=4.0),
    }
    for name, value in changed.items():
        assert relative(value, base) > 0.05, name


def test_the_published_key_layout_and_back_is_the_same_model(toy, toy_paths):
    published = load_file(toy_paths.flux_file)
    own = toy.transformer.state_dict()
    back = bfl.from_bfl(published, width=256)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], own[key]) for key in own)
    prefixed = {f"model.diffusion_model.{key}": value for key, value in published.items()}
    assert bfl.from_bfl(prefixed, width=256).keys() == own.keys()


def test_another_architectures_keys_are_refused_by_name(toy):
    state = toy.transformer.state_dict()
    with pytest.raises(SqueezeError, match="controlnet_x"):
        bfl.to_bfl({**state, "controlnet_x.weight": torch.zeros(1)})
    published = bfl.to_bfl(state)
    with pytest.raises(SqueezeError, match="strange"):
        bfl.from_bfl({**published, "strange.weight": torch.zeros(1)}, width=256)
    del published["final_layer.adaLN_modulation.1.weight"]
    with pytest.raises(SqueezeError, match="no whole FLUX"):
        bfl.from_bfl(published, width=256)


def test_the_vae_brings_pictures_to_sixteen_channels_of_about_unit_size_and_back(toy):
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        latent = toy.vae.encode(pixels).latent_dist.mode()
        decoded = toy.vae.decode(latent).sample
    assert latent.shape == (1, 16, 8, 12) and decoded.shape == pixels.shape
    assert 0.3 < ((latent - 0.1159) * 0.3611).std() < 3
    assert 0.1 < decoded.std() < 1


def test_transformers_own_classes_read_the_mllm_folder(toy_paths):
    from transformers import AutoModel, AutoProcessor

    processor = AutoProcessor.from_pretrained(toy_paths.mllm, local_files_only=True)
    _, report = AutoModel.from_pretrained(toy_paths.mllm, local_files_only=True, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    inputs = processor(text="<IMG_CONTEXT>\nhello", images=[picture()], images_kwargs={"crop_to_patches": False})
    ids = inputs["input_ids"][0]
    assert ids.count(processor.image_token_id) == toy_mllm.IMAGE_TOKENS == 16
    assert max(ids) < toy_mllm.CONFIG["text_config"]["vocab_size"]


def test_the_tokenizer_reads_the_toy_grammar_word_by_word_and_loses_no_text(toy):
    tokenizer = toy.mllm.tokenizer
    text = "a small red striped star next to the large blue circle on a beach"
    assert len(tokenizer(text)["input_ids"]) == len(text.split())
    strange = "Ünïcode 漢字 🙂 <tag> 42%\n\n  x"
    assert tokenizer.decode(tokenizer(strange)["input_ids"]) == strange
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.eos_token_id]


def test_the_mllm_loads_like_a_real_one_and_is_the_adapters(toy):
    toy.adapter.config.check_mllm(toy.mllm.identity)
    states = toy.mllm.encode(Prompt("the star of picture 1", images=(picture(), picture(1))))
    assert states.states.shape[0] == 7 and states.hidden == 192
    assert states.image_tokens == 32


def test_text_tokens_hear_the_picture_and_picture_tokens_differ(toy):
    first = toy.mllm.encode(Prompt("the star of picture 1", images=(picture(),)))
    second = toy.mllm.encode(Prompt("the star of picture 1", images=(Image.new("RGB", (60, 40), "red"),)))
    for mask in (first.image_mask, ~first.image_mask):
        assert relative(second.states[-1][mask], first.states[-1][mask]) > 0.05


def test_the_lora_fits_the_transformer_and_changes_it(toy):
    from diffusers import FluxTransformer2DModel

    base = velocity(toy.transformer)
    adapted = FluxTransformer2DModel.from_pretrained(toy.paths.flux, local_files_only=True)
    adapted.load_lora_adapter(dict(toy.adapter.lora), prefix="transformer")
    assert 0.01 < relative(velocity(adapted), base) < 1


def test_a_folded_flux_is_the_same_at_the_guidance_that_it_learned_with(toy):
    """In bf16, as it is shipped and loaded. A trained one: what untrained embeddings say fills all dimensions."""
    state = world.trained_state(world.SHIPPED, "flux")
    untrained = flux.state(UNTRAINED)
    state |= {name: untrained[name].bfloat16().float() for name in folding.SILENT}
    kept = {name: tensor.bfloat16() for name, tensor in folding.folded(state, 1.5).items()}
    whole_size, size = (sum(tensor.numel() for tensor in each.values()) for each in (state, kept))
    assert size < 0.75 * whole_size
    whole, lighter = copy.deepcopy(toy.transformer), copy.deepcopy(toy.transformer)
    whole.load_state_dict(state)
    lighter.load_state_dict(folding.unfolded(kept))
    given = {"pooled": torch.zeros(1, 768), "guidance": 1.5}
    for sigma in (1.0, 0.83, 0.31):
        at = {**given, "sigma": sigma}
        assert relative(velocity(lighter, **at), velocity(whole, **at)) < 0.015
    assert relative(velocity(whole, **given), velocity(whole, **given | {"guidance": 3.0})) > 0.01
    assert torch.equal(velocity(lighter, **given), velocity(lighter, pooled=torch.ones(1, 768), guidance=3.0))
