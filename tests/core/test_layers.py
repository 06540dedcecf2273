"""Layer ranges: what is written is what is chosen."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeeze_core.errors import SqueezeError
from squeeze_core.layers import LayerSelection

layer_sets = st.sets(st.integers(0, 80))


def written(layers: set[int]) -> str:
    """One layer at a time, in no order, some twice: the worst that a user may write."""
    return ", ".join(str(layer) for layer in [*sorted(layers, key=str), *list(layers)[:2]])


@given(layer_sets.filter(bool))
def test_a_selection_read_from_text_is_exactly_that_set(layers):
    assert LayerSelection.parse(written(layers)).indices(81) == sorted(layers)


@given(layer_sets)
def test_text_and_selection_round_trip(layers):
    selection = LayerSelection.parse(written(layers) or "none")
    assert LayerSelection.parse(str(selection)) == selection
    assert str(LayerSelection.parse(str(selection))) == str(selection)


@given(layer_sets, st.integers(81, 90))
def test_the_mask_is_true_at_the_chosen_layers_and_nowhere_else(layers, count):
    mask = LayerSelection.parse(written(layers) or "none").mask(count)
    assert mask.shape == (count,)
    assert {i for i, chosen in enumerate(mask.tolist()) if chosen} == layers


def test_the_papers_ranges_read_as_they_are_printed():
    chosen = LayerSelection.parse("0-9,20-28")
    assert chosen.indices(29) == [*range(10), *range(20, 29)]
    assert str(LayerSelection.parse(" 20 - 28 , 0-4, 5-9, 7")) == "0-9,20-28"


def test_all_and_none_mean_every_layer_and_no_layer():
    assert LayerSelection.parse("All").indices(5) == [0, 1, 2, 3, 4]
    assert LayerSelection.parse(" none ").indices(5) == []
    assert not LayerSelection.parse("none").mask(5).any()


@given(st.integers(1, 80), st.integers(0, 200))
def test_a_layer_that_does_not_exist_names_the_valid_range(layers, beyond):
    with pytest.raises(SqueezeError, match=rf"Layer {layers + beyond} .*0-{layers - 1}\b"):
        LayerSelection.parse(f"0,{layers + beyond}").indices(layers)


@pytest.mark.parametrize("text", ["", "-1", "1-", "a", "1,,2", "1-2-3", "1;2", "0x3", "1.5", "al", "9" * 9])
def test_unreadable_text_is_refused_with_what_may_be_written(text):
    with pytest.raises(SqueezeError, match="0-9,20-28"):
        LayerSelection.parse(text)


def test_a_range_that_runs_backwards_is_refused_with_the_range_meant():
    with pytest.raises(SqueezeError, match='"5-9"'):
        LayerSelection.parse("0-3,9-5")


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    with contextlib.suppress(SqueezeError):
        LayerSelection.parse(text).indices(29)
