"""Encoding: the states of all layers, and which tokens are pictures."""

import pytest
import torch
import transformers
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from squeeze_core.errors import SqueezeError
from squeeze_core.mllm import Prompt, load
from squeeze_core.mllm.prompt import RESERVED
from squeeze_core.mllm.qwen_vl import fitting_size

from . import checkpoints


def reference_states(backbone, prompt):
    """`output_hidden_states` of transformers for the same inputs: [layers + 1, tokens, hidden]."""
    with torch.no_grad():
        output = backbone.model.model(**backbone.inputs(prompt, "cpu"), output_hidden_states=True, use_cache=False)
    return torch.stack([state[0] for state in output.hidden_states])


def hooks(backbone):
    modules = backbone.model.modules()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


@pytest.mark.parametrize("tiles", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_states_equal_output_hidden_states_bit_for_bit(backbone, pictures, count, tiles):
    prompt = Prompt("the hat of picture 1", tuple(pictures[:count]), tiles=tiles)
    states = backbone.encode(prompt)
    assert torch.equal(states.states, reference_states(backbone, prompt))
    assert states.layers == backbone.identity.layers + 1
    assert states.model_id == backbone.identity.label
    assert (states.image_tokens > 0) == (count > 0)


@pytest.mark.parametrize("weight_dtype", ["bf16", "fp8_e4m3fn"])
def test_states_equal_output_hidden_states_in_low_precision(folder, pictures, weight_dtype):
    backbone = load(folder, weight_dtype)
    prompt = Prompt("a hat", tuple(pictures))
    assert torch.equal(backbone.encode(prompt).states, reference_states(backbone, prompt))


def test_loaded_model_equals_transformers_own_loading(folder, backbone, pictures):
    """Guards what no checkpoint holds: rotary frequencies, activation and norm settings of the config."""
    own = transformers.AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="sdpa").eval()
    prompt = Prompt("the hat of picture 1 on the dog of picture 2", tuple(pictures))
    with torch.no_grad():
        inputs = backbone.inputs(prompt, "cpu")
        output = own.model(**inputs, output_hidden_states=True, use_cache=False)
    expected = torch.stack([state[0] for state in output.hidden_states])
    assert torch.equal(backbone.encode(prompt).states, expected)


def test_image_mask_marks_picture_features_and_nothing_else(backbone, pictures):
    """Layer 0 at masked tokens depends on the pixels; at every other token it does not."""
    red, blue = (Image.new("RGB", (90, 120), colour) for colour in ("red", "blue"))
    one, other = (backbone.encode(Prompt("a hat", (image,))) for image in (red, blue))
    changed = (one.states[0] != other.states[0]).any(dim=-1)
    assert torch.equal(changed, one.image_mask)


def test_pictures_are_read_in_order(backbone, pictures):
    forwards = backbone.encode(Prompt("a hat", tuple(pictures)))
    alone = [backbone.encode(Prompt("a hat", (picture,))) for picture in pictures]
    expected = torch.cat([states.states[0][states.image_mask] for states in alone])
    torch.testing.assert_close(forwards.states[0][forwards.image_mask], expected, rtol=1e-5, atol=1e-5)


def test_one_tile_is_256_tokens_at_real_picture_size(tmp_path):
    backbone = load(checkpoints.internvl(tmp_path / "model", image_size=448))
    large = Image.effect_noise((1024, 1024), 90)  # the processor's own default cuts this into 10 tiles
    assert backbone.encode(Prompt("a hat", (large,))).image_tokens == 256
    assert backbone.encode(Prompt("a hat", (large, large))).image_tokens == 512
    assert backbone.encode(Prompt("a hat", (large,), tiles=4)).image_tokens == 5 * 256  # with a thumbnail


@pytest.mark.parametrize("size", [(64, 64), (1024, 1024), (4000, 30), (31, 2000), (3, 3)])
@pytest.mark.parametrize("tiles", [1, 3])
def test_qwen_pictures_stay_within_the_token_budget(tmp_path_factory, size, tiles):
    folder = tmp_path_factory.getbasetemp() / "qwen-budget"
    backbone = load(folder if folder.exists() else checkpoints.qwen(folder))
    inputs = backbone.inputs(Prompt("a hat", (Image.new("RGB", size),), tiles=tiles), "cpu")
    tokens = int((inputs["input_ids"] == backbone.config.image_token_id).sum())
    assert 4 <= tokens <= tiles * 256
    if size == (1024, 1024):
        assert tokens > 200 * tiles  # the budget is used


@pytest.mark.parametrize("most", [256, 1024])
@given(width=st.integers(1, 3000), height=st.integers(1, 3000))
def test_qwen_picture_sizes_are_the_real_processors(most, width, height):
    assume(min(width, height) >= 28 and max(width, height) <= 200 * min(width, height))
    area = 28 * 28
    expected = smart_resize(height, width, factor=28, min_pixels=4 * area, max_pixels=most * area)
    assert fitting_size((width, height), 28, most) == expected[::-1]


def test_qwen_pixels_are_the_real_processors(tmp_path, pictures):
    """Pillow resizes here and torchvision there: at most a few of 255 levels apart."""
    backbone = load(checkpoints.qwen(tmp_path / "model"))
    size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 256 * 28 * 28}
    backbone.image_processor.min_pixels, backbone.image_processor.max_pixels = None, None
    smooth = [picture.resize((400, 300), 3) for picture in pictures]
    for picture in smooth:
        own = backbone.image_processor(images=picture, size=size, return_tensors="pt")
        inputs = backbone.inputs(Prompt("a hat", (picture,)), "cpu")
        assert torch.equal(inputs["image_grid_thw"], own["image_grid_thw"])
        difference = (inputs["pixel_values"] - own["pixel_values"]).abs().max() * 255 * 0.2613
        assert difference < 3


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "1", "LA", "CMYK"])
def test_pictures_of_any_mode_are_read_as_rgb(backbone, pictures, mode):
    picture = pictures[0].convert(mode)
    expected = backbone.encode(Prompt("a hat", (picture.convert("RGB"),)))
    assert torch.equal(backbone.encode(Prompt("a hat", (picture,))).states, expected.states)


def test_internvl_input_equals_the_real_processor_and_template(internvl_folder, pictures):
    backbone = load(internvl_folder)
    processor = transformers.InternVLProcessor.from_pretrained(internvl_folder)
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "the hat of picture 1"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    expected = processor(
        text=text, images=pictures, min_patches=1, max_patches=3, crop_to_patches=True, return_tensors="pt"
    )
    prompt = Prompt("the hat of picture 1", tuple(pictures), system_prompt="Be brief.", tiles=3)
    given = backbone.inputs(prompt, "cpu")
    assert torch.equal(given["input_ids"], expected["input_ids"])
    assert torch.equal(given["pixel_values"], expected["pixel_values"])


def test_qwen_input_equals_the_real_template_when_a_system_prompt_is_given(tmp_path, pictures):
    backbone = load(checkpoints.qwen(tmp_path / "model"))
    content = [{"type": "image"}, {"type": "text", "text": "the hat"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    text = backbone.tokenizer.apply_chat_template(
        messages, chat_template=checkpoints.QWEN_CHAT_TEMPLATE, add_generation_prompt=True, tokenize=False
    )
    inputs = backbone.inputs(Prompt("the hat", (pictures[0],), system_prompt="Be brief."), "cpu")
    once = backbone.tokenizer.decode(inputs["input_ids"][0]).replace("<|image_pad|>", "")
    assert once == text.replace("<|image_pad|>", "")


def test_no_system_prompt_is_added_unasked(backbone):
    text = backbone.tokenizer.decode(backbone.inputs(Prompt("a hat"), "cpu")["input_ids"][0])
    assert text == "<|im_start|>user\na hat<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("token", RESERVED)
def test_control_tokens_in_the_users_text_are_refused(backbone, token):
    for prompt in (Prompt(f"a hat {token} here"), Prompt("a hat", system_prompt=token)):
        with pytest.raises(SqueezeError, match="control token"):
            backbone.encode(prompt)


@pytest.mark.parametrize("tiles", [0, 13, -1, 1.5])
def test_tiles_outside_1_to_12_are_refused(backbone, tiles):
    with pytest.raises(SqueezeError, match="from 1 to 12"):
        backbone.encode(Prompt("a hat", tiles=tiles))


def test_an_empty_prompt_is_refused_but_a_picture_alone_is_not(backbone, pictures):
    with pytest.raises(SqueezeError, match="empty"):
        backbone.encode(Prompt("  "))
    assert backbone.encode(Prompt("", (pictures[0],))).image_tokens > 0


def test_a_picture_too_thin_to_read_is_refused(backbone):
    with pytest.raises(SqueezeError, match="Picture 2 is 2000x5"):
        backbone.encode(Prompt("a hat", (Image.new("RGB", (50, 50)), Image.new("RGB", (2000, 5)))))


class Interrupt(BaseException):
    """As hosts raise it: no Exception."""


@pytest.mark.parametrize("at", [1, 3])
def test_an_interrupt_while_encoding_leaves_no_hooks(backbone, pictures, at):
    def progress(done, total):
        if done == at:
            raise Interrupt

    before = hooks(backbone)
    with pytest.raises(Interrupt):
        backbone.encode(Prompt("a hat", tuple(pictures)), progress=progress)
    assert hooks(backbone) == before
    prompt = Prompt("a hat")
    assert torch.equal(backbone.encode(prompt).states, reference_states(backbone, prompt))


def test_progress_counts_every_state(backbone):
    seen = []
    backbone.encode(Prompt("a hat"), progress=lambda *now: seen.append(now))
    total = backbone.identity.layers + 1
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_the_output_layer_does_not_run_while_encoding(backbone, monkeypatch):
    def fail(*args):
        raise AssertionError("logits were computed")

    monkeypatch.setattr(backbone.model.lm_head, "forward", fail)
    backbone.encode(Prompt("a hat"))


def test_states_can_train_what_reads_them(backbone):
    """No inference tensors: a DLA trains on these states, and autograd refuses inference tensors."""
    states = backbone.encode(Prompt("a hat")).states
    assert not states.requires_grad and not states.is_inference()
    layer = torch.nn.Linear(states.shape[-1], 1)
    layer(states).sum().backward()
    assert layer.weight.grad is not None


def test_states_go_where_they_are_asked_and_hold_no_more_than_themselves(backbone):
    states = backbone.encode(Prompt("a hat"), store_device="cpu").states
    assert states.untyped_storage().nbytes() == states.nbytes


def test_answering_about_a_picture_does_not_change_the_next_encoding(backbone, pictures):
    """Qwen2.5-VL keeps the position shift of its last pictures on the model."""
    prompt = Prompt("the red hat on the dog")
    before = backbone.encode(prompt).states
    before_answer = backbone.generate(prompt, max_new_tokens=6)
    backbone.generate(Prompt("a hat", tuple(pictures)), max_new_tokens=2)
    assert torch.equal(backbone.encode(prompt).states, before)
    backbone.generate(Prompt("a hat", tuple(pictures)), max_new_tokens=2)
    assert backbone.generate(prompt, max_new_tokens=6) == before_answer


def test_a_prompt_longer_than_the_model_reads_is_refused(tmp_path):
    folder = checkpoints.internvl(tmp_path / "model")
    backbone = load(folder)
    backbone.config.text_config.max_position_embeddings = 16
    with pytest.raises(SqueezeError, match="this model reads 16"):
        backbone.encode(Prompt("a very long prompt " * 5))
