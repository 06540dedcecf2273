"""A plan without a model: columns, unless words say where somebody stands."""

import itertools

import pytest

from squeeze_core.errors import SqueezeError
from squeeze_core.planning.checks import problems
from squeeze_core.planning.places import agrees, placed, words_of_place
from squeeze_core.planning.plan import PlanRelation
from squeeze_core.planning.rule import plan_by_rule
from squeeze_core.planning.sentence import MOST_CHARACTERS, read, without_mentions
from squeeze_core.toyworld import scenes


@pytest.mark.parametrize("count", range(1, 13))
def test_any_number_of_subjects_stands_in_equal_parts(count):
    plan = plan_by_rule("everybody on a beach", count)
    assert plan.numbers == tuple(range(1, count + 1)) and problems(plan, count) == []
    sizes = [int(mask.sum()) for mask in plan.masks(8, 8)]
    assert sum(sizes) == 64 and min(sizes) >= 4 and max(sizes) <= 9 / 4 * min(sizes)  # sides of 2 and 3 cells
    assert [subject.picture for subject in plan.subjects] == list(plan.numbers)


def test_a_toy_prompt_becomes_the_captions_that_were_trained():
    plan = plan_by_rule("a photo of the toy of picture 1 left of the toy of picture 2, on a beach", 2, "small")
    assert [subject.caption for subject in plan.subjects] == [
        "a photo of the small toy, on the left, on a beach",
        "a photo of the small toy, on the right, on a beach",
    ]
    assert plan.scene == "a photo, on a beach" and [subject.name for subject in plan.subjects] == ["toy", "toy"]


def test_a_lone_subject_has_the_whole_picture_and_the_instruction():
    prompt = "a photo of the small toy, at the top, on a beach"
    plan = plan_by_rule(prompt, 1, "small")
    assert plan.subjects[0].caption == prompt and plan.masks(4, 4).all()


@pytest.mark.parametrize(
    ("instruction", "relations"),
    [
        ("the cat of picture 1 left of the dog of picture 2", ["1 left of 2"]),
        ("picture 2 to the left of picture 1", ["2 left of 1"]),
        ("The cat from the first image stands on the right side of the dog (from image two).", ["1 right of 2"]),
        ("the cat of picture 1 sits on top of the box of picture 2", ["1 above 2"]),
        ("picture 1 underneath picture 2", ["1 below 2"]),
        ("picture 2 stands in front of picture 1 in the snow", ["2 in front of 1"]),
        ("the cat of photo 1 is behind the dog of photo 2", ["1 behind 2"]),
        (
            "the cat of picture 1 between the dog of picture 2 and the cow of picture 3",
            ["2 left of 1", "1 left of 3"],
        ),
        ("the cat of picture 1, the dog of picture 2 and the cow of picture 3", []),
        ("the cat of picture 1 is looking at the dog of picture 2", ["1 facing 2"]),
        ("the cat of picture 1 next to the cat of picture 1", []),
        ("a beach", []),
    ],
)
def test_words_between_two_mentions_are_their_relation(instruction, relations):
    assert [str(relation) for relation in read(instruction).relations] == relations
    plan = plan_by_rule(instruction, 3)
    assert problems(plan, 3) == []


def test_names_are_read_with_their_adjectives_and_not_with_the_style():
    reading = read("a watercolour of the old red hat from image 2 and my dog of picture 1, at sunset.")
    assert reading.names == {2: "old red hat", 1: "dog"}
    assert reading.before == "a watercolour of" and reading.scene == "at sunset"


def test_picture_numbers_leave_a_text_and_nothing_else_does():
    assert without_mentions("the hat of picture 2 on a dog (from the first image)") == "the hat on a dog"
    assert without_mentions("a picture of a dog in the first snow") == "a picture of a dog in the first snow"
    assert without_mentions("picture 3 at night") == "it at night"


@pytest.mark.parametrize("index", range(30))
def test_every_relation_of_the_toy_world_is_understood(index):
    options = scenes.WorldOptions(kinds=(("several", 1.0),))
    pair = scenes.pair(5, index, options)
    plan = plan_by_rule(pair.prompt, 2)
    said = [relation.relation for relation in plan.relations]
    assert said == ([pair.told.relation] if pair.told.relation else [])
    assert problems(plan, 2) == []


def test_any_two_relations_that_can_hold_together_do():
    words = ("left of", "above", "in front of", "behind", "below", "right of")
    pairs = [(1, 2), (2, 3), (1, 3), (3, 1)]
    held = contradicted = 0
    for (one, first), (two, second) in itertools.product(itertools.product(words, pairs), repeat=2):
        relations = [
            PlanRelation(subject=pair[0], relation=word, object=pair[1])
            for word, pair in ((one, first), (two, second))
        ]
        try:
            grid, depths = placed([1, 2, 3, 4], relations)
        except SqueezeError:
            contradicted += 1
            plain = {relation.plain for relation in relations}
            assert any((second, word, first) in plain for first, word, second in plain), (one, first, two, second)
            continue
        held += 1
        assert all(agrees(grid, depths, relation) for relation in relations), relations
        assert {number for row in grid for number in row} >= {1, 2, 3, 4}
    assert held > 500 and contradicted > 20


def test_places_in_words_are_those_of_the_toy_world():
    box = plan_by_rule("x", 12).boxes
    assert words_of_place(box[1]) == "in the top left" and words_of_place(box[12]) == "in the bottom right"
    assert {words_of_place(each) for each in box.values()} <= set(scenes.PLACES)


@pytest.mark.parametrize(
    ("instruction", "pictures", "words"),
    [
        ("", 1, "instruction is empty"),
        ("a" * (MOST_CHARACTERS + 1), 1, "4,001 characters"),
        ("half a sign \ud83d", 1, "lone surrogate"),
        ("a beach", 0, "0 pictures"),
        ("a beach", 13, "13 pictures"),
        ("the cat of picture 3", 2, "names picture 3, but there are 2"),
        ("picture 1 left of picture 2. picture 2 left of picture 1", 2, "round in a circle"),
    ],
)
def test_what_the_rule_cannot_plan_is_one_sentence(instruction, pictures, words):
    with pytest.raises(SqueezeError, match=words):
        plan_by_rule(instruction, pictures)
