"""Many prompts in few passes: the states of single passes."""

import numpy as np
import pytest
import torch
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.mllm import Prompt
from squeeze_core.mllm import batches as batching
from squeeze_core.mllm.reading import Reading


@pytest.fixture(scope="module")
def four():
    random = np.random.default_rng(1)
    sizes = [(90, 120), (230, 100), (64, 64), (150, 300)]
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


def mixed(four, **more):
    """0 to 4 pictures, neither in order of length nor of one length."""
    return [
        Prompt(f"the hat {'of picture 1 ' * (count % 3)}", tuple(four[:count]), **more) for count in (2, 0, 4, 1, 3)
    ]


def counted(module):
    """The batch sizes with which a module runs, and what ends the counting."""
    seen = []
    hook = module.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).shape[0]),
        with_kwargs=True,
    )
    return seen, hook


@pytest.mark.parametrize("tiles", [1, 3])
def test_states_of_0_to_4_pictures_equal_single_passes(backbone, four, tiles):
    prompts = mixed(four, tiles=tiles, system_prompt="Be brief.")
    for prompt, states in zip(prompts, backbone.encode_many(prompts), strict=True):
        alone = backbone.encode(prompt)
        torch.testing.assert_close(states.states, alone.states, rtol=1e-5, atol=1e-5)
        assert torch.equal(states.image_mask, alone.image_mask)
        assert (states.model_id, states.system_prompt, states.tiles) == (
            backbone.identity.label,
            "Be brief.",
            tiles,
        )
        assert states.states.untyped_storage().nbytes() == states.states.nbytes  # holds no one else's


@pytest.mark.parametrize("side", ["left", "right"])
def test_states_of_prompts_that_their_reading_pads_equal_single_passes(backbone, four, side):
    padded = Reading(pad_to=96, pad_side=side)
    prompts = [*mixed(four[:2], reading=padded), *mixed(four)]
    for prompt, states in zip(prompts, backbone.encode_many(prompts), strict=True):
        torch.testing.assert_close(states.states, backbone.encode(prompt).states, rtol=1e-5, atol=1e-5)


def test_all_prompts_share_one_pass_of_vision_and_one_of_language(backbone, four):
    language, hook = counted(backbone.model.model.language_model.layers[0])
    vision = getattr(backbone.model.model, "visual", None) or backbone.model.model.vision_tower
    runs = []
    other = vision.register_forward_pre_hook(lambda *given: runs.append(1))
    try:
        backbone.encode_many(mixed(four))
    finally:
        hook.remove()
        other.remove()
    assert language == [5] and runs == [1]


def test_too_many_tokens_are_split_and_progress_counts_every_pass(backbone, four, monkeypatch):
    prompts = mixed(four)
    whole = backbone.encode_many(prompts)
    longest = max(states.tokens for states in whole)
    monkeypatch.setattr(batching.passes, "__defaults__", (2 * longest,))
    language, hook = counted(backbone.model.model.language_model.layers[0])
    told = []
    try:
        parts = backbone.encode_many(prompts, progress=lambda *now: told.append(now))
    finally:
        hook.remove()
    assert len(language) > 1 and sum(language) == 5 and max(language) >= 2
    total = len(language) * (backbone.identity.layers + 1)
    assert told == [(done, total) for done in range(1, total + 1)]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.states, other.states, rtol=1e-5, atol=1e-5)


def test_a_pass_holds_no_more_padded_tokens_than_asked():
    prompts = [Prompt("a")] * 6
    parts = batching.passes(prompts, [10, 300, 20, 10, 90, 10], most=100)
    assert sorted(number for part in parts for number in part) == list(range(6))
    assert parts[0] == [1]  # alone: longer than what is asked
    for part in parts[1:]:
        assert len(part) * max([10, 300, 20, 10, 90, 10][number] for number in part) <= 100


def test_the_same_prompts_give_the_same_bits(backbone, four):
    for one, other in zip(backbone.encode_many(mixed(four)), backbone.encode_many(mixed(four)), strict=True):
        assert torch.equal(one.states, other.states)


def test_no_prompts_are_no_states_and_a_bad_one_is_refused_before_any_work(backbone, four):
    assert backbone.encode_many([]) == []
    seen, hook = counted(backbone.model.model.language_model.layers[0])
    try:
        with pytest.raises(SqueezeError, match="empty"):
            backbone.encode_many([*mixed(four), Prompt(" ")])
    finally:
        hook.remove()
    assert seen == []
