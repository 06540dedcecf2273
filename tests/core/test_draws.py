import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from squeeze_core.draws import Draws


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**50), min_size=2, max_size=8, unique=True))
def test_a_draw_does_not_depend_on_what_was_drawn_before(seed, indices):
    forwards = [Draws(seed).normal("noise", index, (4,)) for index in indices]
    draws = Draws(seed)
    backwards = [draws.normal("noise", index, (4,)) for index in reversed(indices)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards))
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(forwards))


def test_threads_draw_the_same_numbers():
    draws, found = Draws(3), {}
    threads = [
        threading.Thread(
            target=lambda start=start: found.update({i: draws.uniform("x", i) for i in range(start, 400, 4)})
        )
        for start in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: Draws(3).uniform("x", i) for i in range(400)}


def test_seed_and_purpose_give_unrelated_numbers():
    one = np.array([Draws(0).uniform("a", i) for i in range(2000)])
    for other in (
        [Draws(1).uniform("a", i) for i in range(2000)],
        [Draws(0).uniform("b", i) for i in range(2000)],
        [Draws(0).uniform("a", i + 1) for i in range(2000)],
    ):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_draws_have_the_distribution_that_they_are_named_after():
    draws = Draws(5)
    uniform = np.array([draws.uniform("u", i) for i in range(4000)])
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.02) and uniform.var() == pytest.approx(1 / 12, abs=0.01)
    normal = draws.normal("n", 0, (16, 64, 64))
    assert normal.dtype == torch.float32
    assert normal.mean().abs() < 0.02 and abs(normal.std() - 1) < 0.02
    assert np.mean([draws.chance("c", i, 0.2) for i in range(4000)]) == pytest.approx(0.2, abs=0.02)
    assert not any(draws.chance("never", i, 0.0) for i in range(500))
    assert all(draws.chance("always", i, 1.0) for i in range(500))
    assert {draws.integer("i", i, 5) for i in range(200)} == {0, 1, 2, 3, 4}


def test_a_shuffled_walk_meets_each_item_once_a_turn_and_each_turn_in_another_order():
    walk = [Draws(7).shuffled("data", i, 50) for i in range(150)]
    turns = [walk[:50], walk[50:100], walk[100:]]
    assert all(sorted(turn) == list(range(50)) for turn in turns)
    assert turns[0] != turns[1] != turns[2] != turns[0] and turns[0] != list(range(50))


def test_the_numbers_are_those_of_earlier_versions():
    """A run resumed under a newer version must go on with the numbers that it began with."""
    draws = Draws(11)
    assert draws.uniform("sigma", 12345) == pytest.approx(UNIFORM, abs=1e-15)
    assert draws.normal("noise", 12345, (2,)).tolist() == pytest.approx(NORMAL, abs=1e-7)
    assert [draws.shuffled("data", i, 1000) for i in range(3)] == SHUFFLED


UNIFORM, NORMAL, SHUFFLED = 0.2675266206933097, [-0.25708481669425964, 0.7727157473564148], [288, 89, 133]


def test_spread_draws_of_any_batch_cover_the_range_evenly():
    draws = Draws(3)
    for start in (0, 32, 10**6):
        values = sorted(draws.spread("sigma", start + i) for i in range(32))
        gaps = [b - a for a, b in zip([values[-1] - 1, *values], values)]
        assert values[0] >= 0 and values[-1] < 1 and max(gaps) < 2 / 32
    assert draws.spread("sigma", 5) != draws.spread("other", 5)
