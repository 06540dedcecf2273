"""The toy world's pictures: always the same, as told, and honest about identity."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from squeeze_core.flux.tokens import DOWNSCALE, PATCH
from squeeze_core.toyworld import measures, scenes
from squeeze_core.toyworld.backgrounds import BACKGROUNDS, painted
from squeeze_core.toyworld.figures import COLOURS, FIGURES, OBJECTS, PATTERNS, SHAPES, Identity, Pose
from squeeze_core.toyworld.grammar import sentences


def drawn(kind: str, count: int = 40, **options) -> list[scenes.Pair]:
    return [scenes.pair(1, i, scenes.WorldOptions(kinds=((kind, 1.0),), **options)) for i in range(count)]


def test_a_seed_and_an_index_give_the_same_pictures_on_every_machine():
    assert scenes.pair(0, 5) == scenes.pair(0, 5) != scenes.pair(0, 6) != scenes.pair(1, 6)
    captions = "\n".join(scenes.single(0, i).caption for i in range(50))
    assert hashlib.sha256(captions.encode()).hexdigest()[:16] == "205739720cbf0a1f"
    picture = scenes.render(scenes.single(0, 0).scene)
    assert np.array_equal(picture, scenes.render(scenes.single(0, 0).scene))
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8


def test_every_colour_stands_out_from_every_background_and_from_the_others():
    for name in BACKGROUNDS:
        ground = painted(name, scenes.SIDE).reshape(-1, 3)
        for colour in COLOURS.values():
            assert np.abs(ground - np.array(colour)).max(1).min() > 0.14, (name, colour)
    for (a, x), (b, y) in combinations(COLOURS.items(), 2):
        assert np.abs(np.array(x) - np.array(y)).max() > 0.25, (a, b)


def test_figures_stay_inside_the_unit_circle_and_differ():
    axis = np.linspace(-1.2, 1.2, 121)
    x, y = np.meshgrid(axis, axis)
    masks = {name: inside(x, y) for name, inside in FIGURES.items()}
    for name, mask in masks.items():
        assert mask.any() and not (mask & (np.hypot(x, y) > 1.02)).any(), name
    for a, b in combinations(masks, 2):
        assert (masks[a] & masks[b]).sum() / (masks[a] | masks[b]).sum() < 0.87, (a, b)


def test_every_pattern_shows_both_colours_in_every_shape():
    axis = np.linspace(-1, 1, 101)
    x, y = np.meshgrid(axis, axis)
    for shape in SHAPES:
        for pattern in PATTERNS:
            share = PATTERNS[pattern](x, y)[FIGURES[shape](x, y)].mean()
            assert share == 0 if pattern == "plain" else 0.12 < share < 0.8, (shape, pattern)


def test_subjects_are_whole_and_apart():
    for i in range(150):
        subjects = scenes.single(2, i).scene.subjects
        for subject in subjects:
            pose, reach = subject.pose, subject.pose.size / 2
            assert reach <= pose.x + 0.01 and pose.x + reach <= 1.01
            assert reach <= pose.y + 0.01 and pose.y + reach <= 1.01
        for a, b in combinations(subjects, 2):
            assert np.hypot(a.pose.x - b.pose.x, a.pose.y - b.pose.y) > 0.45


def test_subjects_stand_on_the_grid_of_flux_tokens():
    turns = set()
    for i in range(200):
        for subject in scenes.single(3, i, scenes.WorldOptions(carrying=0.0)).scene.subjects:
            steps = [(each - 0.5) * scenes.SIDE / (DOWNSCALE * PATCH) for each in (subject.pose.x, subject.pose.y)]
            assert all(step == round(step) for step in steps)
            turns.add(subject.pose.angle)
    assert turns == {-20.0, 0.0, 20.0}


def test_upright_toys_are_never_shown_in_the_pose_that_is_asked_for():
    """Place and size are all that their poses have, and a prompt tells both."""
    for i in range(300):
        pair = scenes.pair(0, i, scenes.WorldOptions(max_turn=0, kinds=(("one", 1.0),)))
        wanted, shown = (scene.subjects[0].pose for scene in (pair.target, *pair.references))
        assert wanted != shown and wanted.angle == shown.angle == 0
        assert f"{pair.told.size} toy, {pair.told.place}, {pair.told.background}" in pair.prompt
        assert pair.told.place == measures.place(wanted)


def test_scenes_stand_as_they_are_told():
    for pair in drawn("one", carrying=0):
        pose = pair.target.subjects[0].pose
        assert pair.told.place in (None, measures.place(pose))
        assert pair.told.size in (None, "small" if pose.size < measures.SMALL else "large")
        for said in (pair.told.place, pair.told.size, pair.told.background, pair.told.style):
            assert said is None or said in pair.prompt
    for pair in drawn("several"):
        a, b = pair.target.subjects
        assert measures.relation(a.pose, b.pose) == pair.told.relation


def test_prompts_do_not_tell_who_the_subject_is():
    names = {*COLOURS, *PATTERNS, *SHAPES}
    for kind in ("one", "several", "reasoning"):
        for pair in drawn(kind):
            assert not names & set(pair.prompt.replace(",", "").split()), pair.prompt


def test_captions_tell_everything():
    for i in range(40):
        one = scenes.single(4, i)
        for subject in one.scene.subjects:
            words = one.caption.replace(",", "").split()
            identity = subject.identity
            assert {identity.shape, identity.colour} <= set(words)
            if identity.second:
                assert {identity.pattern, identity.second} <= set(words)


def test_a_pair_shows_one_identity_in_two_poses():
    for pair in drawn("one"):
        (reference,), (target,) = (scene.subjects for scene in (pair.references[0], pair.target))
        assert reference.identity == target.identity and reference.pose != target.pose
    for pair in drawn("several"):
        assert [r.subjects[0].identity for r in pair.references] == [s.identity for s in pair.target.subjects]


def test_a_reasoning_prompt_speaks_of_what_the_reference_carries():
    for pair in drawn("reasoning"):
        carried = pair.references[0].subjects[0].carries
        assert carried is not None and carried.shape in OBJECTS and carried.shape in pair.prompt
        assert [subject.identity for subject in pair.target.subjects] == [carried]
        assert carried.colour not in (pair.references[0].subjects[0].identity.colour,)


def test_test_identities_never_occur_in_training():
    train = {scenes.pair(0, i).target.subjects[0].identity for i in range(200)}
    test = {
        scenes.pair(0, i, scenes.WorldOptions(split="test", kinds=(("one", 1.0),))).target.subjects[0].identity
        for i in range(200)
    }
    assert not train & test and all(scenes.held_out(identity) for identity in test)
    every = [
        Identity(shape, colour, "striped", second)
        for shape in SHAPES
        for colour in COLOURS
        for second in COLOURS
        if second != colour
    ]
    assert 0.05 < np.mean([scenes.held_out(identity) for identity in every]) < 0.15


def test_an_identity_cannot_contradict_itself():
    with pytest.raises(ValueError, match="plain"):
        Identity("star", "red", "plain", "blue")
    with pytest.raises(ValueError, match="two"):
        Identity("star", "red", "striped", "red")
    Pose(0.5, 0.5, 0.5)


def test_every_word_that_is_said_is_in_the_grammar_that_the_tokenizer_learns():
    known = {word for text in sentences() for word in text.lower().replace(",", "").replace(".", "").split()}
    said = set()
    for i in range(300):
        said |= set(scenes.single(0, i).caption.replace(",", "").split())
        said |= set(scenes.pair(0, i).prompt.replace(",", "").split())
    assert said - {"an"} <= known  # which is a token of its own in "and"
