"""The forms in which an adapter may want its prompt put to the MLLM."""

import pytest
import torch

from squeeze_core.mllm import Prompt
from squeeze_core.mllm.reading import Reading


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_fills_up_and_leaves_the_words_states_alone(backbone, pictures, side):
    prompt = Prompt("the hat of picture 1", tuple(pictures))
    plain = backbone.encode(prompt)
    to = plain.tokens + 20
    padded = backbone.encode(Prompt(prompt.text, prompt.images, reading=Reading(pad_to=to, pad_side=side)))
    own = slice(20, None) if side == "left" else slice(0, plain.tokens)
    assert padded.tokens == to and padded.states.isfinite().all()
    assert padded.image_tokens == plain.image_tokens
    assert torch.equal(padded.image_mask[own], plain.image_mask)
    apart = (padded.states[:, own] - plain.states).abs().max()
    assert apart < 1e-4 * plain.states.abs().max()


def test_a_longer_prompt_is_neither_cut_nor_padded(backbone):
    prompt = Prompt("the hat of picture 1")
    assert backbone.encode(Prompt(prompt.text, reading=Reading(pad_to=4))).tokens == backbone.encode(prompt).tokens


def text_of(backbone, prompt):
    inputs = backbone.inputs(prompt, "cpu")
    return backbone.tokenizer.decode(inputs["input_ids"][0])


def test_the_dictionary_is_the_one_that_was_trained_on(backbone, pictures):
    reading = Reading(text="dictionary")
    said = "{'Text input': 'a hat', 'Instruction editing description': 'no', 'image input': 'no'}"
    assert said in text_of(backbone, Prompt("a hat", reading=reading))
    assert said.replace("'no'}", "'yes'}") in text_of(backbone, Prompt("a hat", tuple(pictures), reading=reading))


def test_pictures_are_numbered_as_qwens_own_template_does(backbone, pictures):
    text = text_of(backbone, Prompt("a hat", tuple(pictures), reading=Reading(numbered=True)))
    start = backbone.picture_ends[0]
    assert f"Picture 1: {start}" in text and f"Picture 2: {start}" in text


@pytest.mark.parametrize(("keep", "side", "tokens"), [(True, 224, 64), (False, 128, 25), (True, 128, 20)])
def test_qwen_reads_pictures_at_the_size_asked_for(tmp_path, keep, side, tokens):
    from PIL import Image

    from squeeze_core.mllm import load

    from . import checkpoints

    backbone = load(checkpoints.qwen(tmp_path / "qwen"))
    prompt = Prompt("a hat", (Image.new("RGB", (800, 800)),), reading=Reading(picture_side=side, keep_shape=keep))
    found = backbone.encode(prompt).image_tokens
    assert found == tokens if tokens != 20 else found <= 20


def test_what_was_asked_otherwise_is_told_with_both_values():
    wanted = Reading(text="dictionary", pad_to=512)
    assert wanted.unlike(wanted) == []
    assert wanted.unlike(Reading(pad_to=512)) == ["text is plain, and the adapter was trained with dictionary"]
