"""The endless shuffled walk: mixtures, and examples that cannot be read."""

from collections import Counter

import pytest
from PIL import Image

from squeeze_core.data.examples import BrokenExample, Example, Walk
from squeeze_core.draws import Draws
from squeeze_core.errors import SqueezeError


class Numbers:
    """Examples named after the set and the number; those in `broken` cannot be read."""

    def __init__(self, name, length, broken=()):
        self.name, self.length, self.broken = name, length, set(broken)

    def __len__(self):
        return self.length

    def __getitem__(self, number):
        if number in self.broken:
            raise BrokenExample(f"{self.name}/{number}.png: cut off")
        return Example("a prompt", Image.new("RGB", (4, 4)), (), f"{self.name}{number}")

    def identity(self):
        return self.name


def names(walk, indices):
    return [walk.example(index).name for index in indices]


def test_each_example_comes_once_a_turn():
    walk = Walk([Numbers("a", 20)], [1], Draws(0))
    first, second = names(walk, range(20)), names(walk, range(20, 40))
    assert sorted(first) == sorted(second) and len(set(first)) == 20 and first != second


def test_a_mixture_keeps_its_shares_and_each_set_its_turns():
    walk = Walk([Numbers("a", 30), Numbers("b", 8)], [3, 1], Draws(1))
    met = names(walk, range(400))
    for start in range(0, 400, 4):
        assert Counter(name[0] for name in met[start : start + 4]) == {"a": 3, "b": 1}
    assert len({tuple(name[0] for name in met[start : start + 4]) for start in range(0, 400, 4)}) > 1
    of_a, of_b = ([name for name in met if name[0] == letter] for letter in "ab")
    assert all(len(set(of_a[start : start + 30])) == 30 for start in range(0, 300, 30))
    assert all(len(set(of_b[start : start + 8])) == 8 for start in range(0, 96, 8))


def test_order_of_asking_changes_nothing():
    sources, shares = [Numbers("a", 9, {4}), Numbers("b", 5)], [2, 1]
    forwards = names(Walk(sources, shares, Draws(2)), range(60))
    backwards = names(Walk(sources, shares, Draws(2)), reversed(range(60)))
    assert forwards == backwards[::-1]


def test_a_broken_example_is_replaced_by_the_next_and_named_once(capsys):
    sound, holed = Walk([Numbers("a", 10)], [1], Draws(3)), Walk([Numbers("a", 10, {4, 5, 9})], [1], Draws(3))
    for expected, found in zip(names(sound, range(50)), names(holed, range(50))):
        assert found == {"a4": "a6", "a5": "a6", "a9": "a0"}.get(expected, expected)
    assert sorted(holed.broken) == ["0/4", "0/5", "0/9"]
    assert capsys.readouterr().err.count("cut off") == 3


def test_an_example_refused_by_the_check_is_replaced_too():
    def check(example):
        if example.name == "a2":
            raise SqueezeError("no good")

    walk = Walk([Numbers("a", 5)], [1], Draws(0), check)
    assert "a2" not in names(walk, range(25)) and list(walk.broken.values()) == ["a2: no good"]


def test_a_set_with_nothing_to_read_is_refused():
    with pytest.raises(SqueezeError, match="holds no example"):
        Walk([Numbers("a", 0)], [1], Draws(0))
    with pytest.raises(SqueezeError, match=r"in a row.*cut off"):
        Walk([Numbers("a", 7, range(7))], [1], Draws(0)).example(0)
