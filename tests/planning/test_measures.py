"""A planner's measures on plans whose scores are known by hand."""

import json

import pytest
from typer.testing import CliRunner

from squeeze_core.cli import app
from squeeze_core.errors import SqueezeError
from squeeze_core.planning.files import write_plans
from squeeze_core.planning.measures import score_folders, score_plan
from squeeze_core.planning.plan import ScenePlan

LEFT_RIGHT = ["11110000"] * 4 + ["00002222"] * 4


def plan(grid, names=("a red ball", "a dog"), pictures=(1, 2), relations=(), numbers=(1, 2)):
    return ScenePlan.parse(
        {
            "subjects": [
                {"number": n, "name": name, "picture": picture, "caption": name}
                for n, name, picture in zip(numbers, names, pictures)
            ],
            "relations": [dict(zip(("subject", "relation", "object"), each)) for each in relations],
            "grid": [" ".join(row) for row in grid],
        }
    )


TRUTH = plan(LEFT_RIGHT, relations=[(1, "left of", 2), (1, "above", 2)])


def test_the_right_plan_is_right_in_everything():
    score = score_plan(TRUTH, TRUTH)
    assert (score.subjects, score.names, score.relations, score.grid_iou, score.sound) == (1, 1, 1, 1, True)


def test_subjects_are_matched_by_their_picture_whatever_their_numbers():
    other = plan([row.replace("1", "3").replace("2", "1") for row in LEFT_RIGHT], numbers=(3, 1))
    score = score_plan(other, TRUTH)
    assert (score.subjects, score.names, score.relations, score.grid_iou) == (1, 1, 1, 1)


def test_swapped_places_break_relations_and_grid_but_not_names():
    score = score_plan(plan([row.translate(str.maketrans("12", "21")) for row in LEFT_RIGHT]), TRUTH)
    assert (score.subjects, score.names, score.relations, score.grid_iou) == (1, 1, 0, 0)


def test_half_the_cells_are_half_the_iou_and_a_wrong_name_is_half_the_names():
    half = ["11000000"] * 4 + ["00002200"] * 4
    score = score_plan(plan(half, names=("The red ball", "a cat")), TRUTH)
    assert (score.subjects, score.names, score.relations, score.grid_iou) == (1, 0.5, 1, 0.5)


def test_a_subject_that_is_left_out_counts_as_wrong_everywhere():
    alone = plan(["11110000"] * 4 + ["00000000"] * 4, names=("a red ball",), pictures=(1,), numbers=(1,))
    score = score_plan(alone, TRUTH)
    assert (score.subjects, score.names, score.relations, score.grid_iou) == (0.5, 0.5, 0, 0.5)


def test_subjects_of_words_alone_are_matched_by_their_name():
    truth = plan(LEFT_RIGHT, pictures=(None, None))
    assert score_plan(plan(LEFT_RIGHT, names=("red ball", "the DOG"), pictures=(None, None)), truth).subjects == 1
    assert score_plan(plan(LEFT_RIGHT, names=("red ball", "a cat"), pictures=(None, None)), truth).subjects == 0.5


def test_folders_count_what_does_not_parse_and_what_does_not_pass(tmp_path):
    given, truths = tmp_path / "given", tmp_path / "truths"
    given.mkdir()
    truths.mkdir()
    for name in ("a", "b", "c", "d"):
        write_plans([TRUTH], truths / f"{name}.json")
    unsound = plan(["11111111"] * 8, relations=[])  # subject 2 has no cell
    write_plans([TRUTH, unsound], given / "a.json")
    write_plans([TRUTH], given / "b.json")
    (given / "c.json").write_text('{"plans": [')
    mean, rows = score_folders(given, truths)
    assert (mean.scenes, mean.parsed, mean.sound) == (4, 0.5, 2 / 5)
    assert (mean.subjects, mean.grid_iou, mean.relations) == (0.5, 0.5, 0.5)
    assert "cut off" in rows["c.json"] and "no plan at" in rows["d.json"]
    result = CliRunner().invoke(
        app(), ["eval", "plans", str(given), "--truth", str(truths), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "plans.json").read_text())["mean"]["parsed"] == 0.5


def test_a_folder_without_right_plans_is_refused(tmp_path):
    with pytest.raises(SqueezeError, match="holds no plan"):
        score_folders(tmp_path, tmp_path)
