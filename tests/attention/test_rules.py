"""Regions on a grid of tokens, rules for a sequence, and when references are heard."""

import math
import random
from itertools import pairwise

import pytest
import torch

from squeeze_core.attention.regions import PixelBox, Region, boxes, owners
from squeeze_core.attention.rules import AttentionRules, Layout, ReferenceRule
from squeeze_core.errors import SqueezeError
from squeeze_core.gate import Gate
from squeeze_core.references import Reference
from squeeze_core.windows import ALWAYS, part_of, parts


def test_a_box_on_token_borders_is_exactly_those_tokens():
    on = Region((PixelBox(16, 32, 32, 16),)).on(4, 5, 16)
    assert on.nonzero().tolist() == [[2, 1], [2, 2]] and set(on.unique().tolist()) == {0.0, 1.0}


def test_a_token_half_inside_counts_and_a_tiny_region_keeps_one_token():
    assert Region((PixelBox(0, 0, 24, 16),)).on(1, 4, 16).tolist() == [[1, 1, 0, 0]]
    assert Region((PixelBox(37, 20, 3, 3),)).on(4, 4, 16).nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (8, 8), (3, 1000)])
def test_a_hard_mask_of_any_size_stays_hard(size):
    mask = torch.zeros(size)
    mask[:, : size[1] // 2] = 1
    on = Region(mask=mask).on(6, 8, 16)
    assert set(on.unique().tolist()) == {0.0, 1.0} and on[:, :3].all() and not on[:, 5:].any()


def test_a_grey_mask_stays_grey():
    ramp = torch.linspace(0, 1, 65)[1:].repeat(64, 1)
    on = Region(mask=ramp).on(4, 4, 16)
    assert torch.allclose(on[0], torch.tensor([0.1328, 0.3828, 0.6328, 0.8828]), atol=1e-3)


def test_boxes_are_read_as_core_gives_them():
    one = {"x": 1, "y": 2, "width": 3, "height": 4, "metadata": {}}
    assert boxes(one) == boxes([one]) == boxes([[one]]) == (PixelBox(1, 2, 3, 4),)
    assert len(boxes([[one, one], [one]])) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Region((PixelBox(0, 0, 0, 5),)), "no area"),
        (lambda: Region((PixelBox(0, 0, math.nan, 5),)), "no area"),
        (lambda: Region((PixelBox(500, 0, 16, 16),)).on(4, 4, 16), "outside the picture of 64 x 64 px"),
        (lambda: Region(mask=torch.zeros(4, 4)), "black everywhere"),
        (lambda: Region(mask=torch.full((4, 4), math.nan)), "no numbers"),
        (lambda: Region(mask=torch.ones(1, 4, 4)), r"\[height, width\]"),
        (lambda: Region(), "no box"),
        (lambda: Region((PixelBox(0, 0, 1, 1),), torch.ones(2, 2)), "boxes and a mask"),
        (lambda: boxes("left"), "x, y, width and height"),
        (lambda: boxes({"x": 1}), "x, y, width and height"),
        (lambda: ReferenceRule(strength=-1), "strength"),
        (lambda: ReferenceRule(strength=math.nan), "strength"),
        (lambda: Layout((), ()), "no subject"),
        (lambda: Layout(((1, 3),), ((2, Region((PixelBox(0, 0, 9, 9),))),)), "no place"),
        (lambda: Layout((), ((13, Region((PixelBox(0, 0, 9, 9),))),)), "1 to 12"),
        (lambda: Layout((), ((1, Region((PixelBox(0, 0, 9, 9),))),), until=2), "until"),
        (lambda: Reference(torch.zeros(1, 16, 4, 4), start=0.2, end=0.4), "never be heard"),
        (lambda: Reference(torch.zeros(1, 16, 4, 4), start=1.2), "sigma in 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(make, message):
    with pytest.raises(SqueezeError, match=message):
        make()


def test_the_nearest_subject_wins_and_a_covered_one_is_refused():
    left, all_of_it = Region((PixelBox(0, 0, 32, 64),)), Region((PixelBox(0, 0, 64, 64),))
    owner = owners(((1, all_of_it), (2, left)), 4, 4, 16)
    assert owner[0].tolist() == [2, 2, 1, 1]
    with pytest.raises(SqueezeError, match="subject 2 is covered"):
        owners(((2, left), (1, all_of_it)), 4, 4, 16)


def test_words_that_fell_silent_are_everybodys_and_repeated_ones_keep_their_owner():
    place = ((1, Region((PixelBox(0, 0, 32, 64),))),)
    rules = AttentionRules(words=((0, 2), (1, 3)), places=place)
    assert rules.visibility(5, (4, 4), (), 16).words.tolist() == [0, 0, 1, 1, 1]
    assert rules.visibility(10, (4, 4), (), 16).words.tolist() == [0, 0, 1, 1, 1] * 2
    assert rules.visibility(8, (4, 4), (), 16, padded=True).words.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert AttentionRules(places=place).visibility(1, (4, 4), (), 16).words.tolist() == [0]
    with pytest.raises(SqueezeError, match="7 tokens and the layout was made for 5"):
        rules.visibility(7, (4, 4), (), 16)
    with pytest.raises(SqueezeError, match="1 references"):
        rules.visibility(5, (4, 4), (3,), 16)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_heard_is_the_gate_and_each_window_at_every_sigma(seed):
    draw = random.Random(seed)
    tau_2, tau_1 = sorted(draw.uniform(0, 1.1) for _ in range(2))
    gate = Gate(tau_1, tau_2)
    windows = [tuple(sorted((draw.uniform(0, 1.1), draw.uniform(0, 1.1)), reverse=True)) for _ in range(3)]
    windows[0] = ALWAYS if seed % 2 else windows[0]
    found = parts(gate, windows)
    edges = [tau_1, tau_2, *(edge for window in windows for edge in window)]
    for sigma in [*edges, *(draw.uniform(0, 1.1) for _ in range(200)), 0.0, 1.0]:
        sigma = torch.tensor(sigma).item()
        part = part_of(found, sigma)
        stage = gate.stage(sigma)
        f = lambda value: torch.tensor(value).item()  # noqa: E731
        expected = tuple(
            n
            for n, (start, end) in enumerate(windows)
            if stage.vae and (end == 0 or f(end) <= sigma) and (start == 1.1 or sigma < f(start))
        )
        assert part.references == expected, sigma
        assert part.text == (stage.mllm or not expected)
        assert sum(sigma in other for other in found) == 1
    for one, two in pairwise(found):
        assert (one.text, one.references) != (two.text, two.references) and one.low == two.high


def test_without_windows_the_parts_are_the_gates_stages():
    found = parts(Gate(0.95, 0.85), [ALWAYS])
    assert [(part.text, part.references) for part in found] == [(True, ()), (True, (0,)), (False, (0,))]
    assert [part.low for part in found] == [torch.tensor(0.95).item(), torch.tensor(0.85).item(), -math.inf]
