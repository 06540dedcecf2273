"""A plan is what its JSON says, whole or refused with one sentence."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.planning import files
from squeeze_core.planning.grid import Box
from squeeze_core.planning.picture import COLOURS, draw_plan, draw_plans
from squeeze_core.planning.plan import ScenePlan


def twelve() -> ScenePlan:
    subjects = [{"number": n, "name": f"toy {n}", "picture": n, "caption": f"toy {n}"} for n in range(1, 13)]
    grid = [[1 + (i // 3 if i < 6 else 2) * 4 + j // 2 for j in range(8)] for i in range(8)]
    return ScenePlan.parse({"subjects": subjects, "grid": grid})


def test_json_comes_back_the_same_in_every_form(plan, tmp_path):
    assert ScenePlan.parse(json.loads(plan.to_json())) == plan
    assert ScenePlan.parse(json.loads(plan.answer())) == plan
    assert files.parse_plans(plan.to_json()) == (plan,)
    path = files.write_plans([plan, twelve()], tmp_path / "new" / "plan.json")
    assert files.read_plans(path) == (plan, twelve())
    assert [entry.name for entry in path.parent.iterdir()] == ["plan.json"]


def test_the_answer_of_a_model_has_the_thought_first_and_the_grid_last(plan):
    assert list(json.loads(plan.answer())) == ["thought", "scene", "subjects", "relations", "grid"]
    assert ": " not in plan.answer().replace(plan.thought, "")


def test_a_plan_file_is_read_in_the_encodings_that_editors_write(plan, tmp_path):
    path = tmp_path / "plan.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(plan.to_json().replace("star", "étoile").encode(encoding))
        assert files.read_plans(path)[0].subjects[0].name == "étoile"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off"),
        (b'{"subjects": [{"number": 1, "na', "cut off"),
        (b'{"subjects": [}', "no JSON at line 1"),
        (b"\xff\xfe{\x00", "cut off"),
        (b"\xe4\xf6\xfc", "Save it as UTF-8"),
        (b"[1, 2]", "must be an object"),
        (b'{"plans": []}', "list of 1 to 100 plans"),
        (b'{"plans": [3]}', "Plan 1 of"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_broken_plan_file_is_one_sentence(tmp_path, data, words):
    path = tmp_path / "plan.json"
    path.write_bytes(data)
    with pytest.raises(SqueezeError, match=words) as refusal:
        files.read_plans(path)
    assert '"plan.json"' in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_plan_file_that_is_not_there_and_a_plan_that_is_not_in_it_are_named(plan, tmp_path):
    with pytest.raises(SqueezeError, match="no plan at"):
        files.read_plans(tmp_path / "nothing.json")
    assert files.pick([plan, twelve()], 2) == twelve()
    for number in (0, 2):
        with pytest.raises(SqueezeError, match="there is 1 plan"):
            files.pick([plan], number)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subjects": []}, "0 subjects; a plan has 1 to 12"),
        ({"subjects": [{"number": n, "caption": "a"} for n in range(1, 14)]}, "13 subjects"),
        ({"subjects": [{"number": 1, "caption": "a"}, {"number": 1, "caption": "b"}]}, "1 is there twice"),
        ({"subjects": [{"number": 1, "picture": 1}, {"number": 2}]}, "neither words nor a picture"),
        ({"subjects": [{"number": 13, "caption": "a"}]}, "subjects 1 number"),
        ({"grid": [[1, 2, 3, 0, 0, 0, 0, 0]] * 8}, "the grid holds 3"),
        ({"grid": [[1, 2]] * 8}, "8 rows of 2 cells"),
        ({"grid": [[0] * 8] * 9}, "9 rows of 8 cells"),
        ({"grid": [[0.5] * 8] * 8}, "valid integer"),
        ({"grid": 5}, "8 rows of 8"),
        ({"relations": [{"subject": 1, "relation": "left of", "object": 3}]}, "not one between two"),
        ({"relations": [{"subject": 1, "relation": "left of", "object": 1}]}, "not one between two"),
        ({"relations": [{"subject": 1, "relation": "loves", "object": 2}]}, "left of"),
        ({"scene": "a\x00b"}, "U\\+0000"),
        ({"scene": "a\ud800"}, "scene"),
        ({"thought": "x" * 801}, "800"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_plan_is_one_sentence_that_says_where(value, change, words):
    with pytest.raises(SqueezeError, match=words) as refusal:
        ScenePlan.parse(value | change)
    assert "\n" not in str(refusal.value)


def test_masks_are_each_subjects_region_in_order(plan):
    masks = plan.masks(6, 10)
    assert masks.shape == (2, 6, 10) and masks.dtype == torch.bool
    assert masks[0, :, :5].all() and not masks[0, :, 5:].any() and torch.equal(masks[1], ~masks[0])
    assert twelve().masks(64, 64).sum(0).eq(1).all()


def test_boxes_and_masks_change_the_grid_and_nothing_else(plan):
    moved = plan.with_boxes({1: Box(0, 0, 1, 0.5), 2: Box(0, 0.5, 1, 0.5)})
    assert moved.grid == ((1,) * 8,) * 4 + ((2,) * 8,) * 4
    assert moved.model_copy(update={"grid": plan.grid}) == plan
    top = torch.zeros(100, 60)
    top[:50] = 1
    assert plan.with_masks({1: top, 2: 1 - top}) == moved
    with pytest.raises(SqueezeError, match="box for subject 1, and the plan has subject 1, 2"):
        plan.with_boxes({1: Box(0, 0, 1, 1)})
    with pytest.raises(SqueezeError, match="mask of subject 2 is black"):
        plan.with_masks({1: top, 2: torch.zeros(4, 4)})


def test_a_grid_may_be_written_as_lines(value, plan):
    assert ScenePlan.parse(value | {"grid": ["1 1 1 1 2 2 2 2"] * 8}) == plan
    assert plan.with_grid("1 1 1 1 2 2 2 2\n" * 8) == plan


def test_the_picture_shows_every_subject_in_its_colour_where_it_stands():
    plan = twelve()
    drawn = np.asarray(draw_plan(plan, 512, 512))
    found = set()
    for number in plan.numbers:
        colour = np.array([int(COLOURS[number - 1][i : i + 2], 16) for i in (1, 3, 5)])
        hits = np.argwhere((drawn == colour).all(-1))
        own = plan.owners(512, 512).numpy()
        assert len(hits) > 500 and (own[tuple(hits.T)] == number).all()
        found.add(tuple(colour))
    assert len(found) == 12
    assert draw_plan(plan, 40, 300).size == (64, 300)


def test_names_are_drawn_and_a_sheet_holds_all_plans(plan):
    unnamed = plan.model_copy(update={"subjects": tuple(s.model_copy(update={"name": ""}) for s in plan.subjects)})
    assert not np.array_equal(np.asarray(draw_plan(plan)), np.asarray(draw_plan(unnamed)))
    one, five = draw_plans([plan], "title"), draw_plans([plan] * 5, "title")
    assert isinstance(five, Image.Image) and five.width > one.width and five.height > one.height
