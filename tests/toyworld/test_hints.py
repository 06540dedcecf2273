"""`squeeze generate` with the toy world says what it does not know."""

import pytest
from PIL import Image
from skimage import data

from squeeze_core.toyworld.examples import unseen_pairs
from squeeze_core.toyworld.hints import hints, looks_drawn

SIZE = (128, 128)


def test_what_it_knows_needs_no_hint():
    pairs = unseen_pairs()
    for number in range(20):
        pair = pairs[number]
        assert hints(pair.prompt, pair.references, SIZE) == []


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket", "camera", "cat"])
def test_a_photograph_is_none_of_its_pictures(name):
    picture = Image.fromarray(getattr(data, name)())
    assert not looks_drawn(picture)
    (hint,) = hints("a photo of the toy", [picture], SIZE)
    assert "photograph" in hint


def test_no_reference_another_size_and_unknown_words_are_a_sentence_each():
    none, size, words = hints("a photo of the toy on a spaceship, melancholic", [], (256, 128))
    assert "No reference" in none and "128 x 256" in size
    assert "spaceship, melancholic" in words and "on a beach" in words  # with what it knows
