"""Inclusion and fill, on cases worked out by hand."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from squeeze_core.errors import SqueezeError
from squeeze_core.planning.files import write_plans
from squeeze_core.planning.placement import placed, score
from squeeze_core.planning.plan import ScenePlan
from squeeze_core.vision.detector import Detection

LEFT_AND_RIGHT = ScenePlan(
    subjects=[
        {"number": 1, "name": "cat", "caption": "a cat"},
        {"number": 2, "name": "dog", "caption": "a dog"},
    ],
    grid="1 1 1 1 2 2 2 2\n" * 8,
)


def box(left, top, right, bottom):
    return Detection(left, top, right, bottom, 0.9)


@pytest.mark.parametrize(
    ("cat", "inclusion", "fill"),
    [
        ([box(0, 0, 40, 40)], 1.0, 0.5),  # the upper half of its region
        ([box(0, 0, 40, 80)], 1.0, 1.0),
        ([box(20, 0, 60, 80)], 0.5, 0.5),  # half of it on the dog's side
        ([box(40, 0, 80, 80)], 0.0, 0.0),  # in the dog's place
        ([box(40, 0, 80, 80), box(0, 0, 20, 80)], 1.0, 0.5),  # the better of two
        ([box(3, 5, 13, 15)], 1.0, 100 / 3200),  # not on the cells' edges
        ([], 0.0, 0.0),
    ],
)
def test_shares_of_boxes_and_regions(cat, inclusion, fill):
    first, second = placed(LEFT_AND_RIGHT, {1: cat, 2: [box(40, 0, 80, 80)]}, 80, 80)
    assert (first.name, first.found) == ("cat", bool(cat))
    assert (first.inclusion, first.fill) == (pytest.approx(inclusion), pytest.approx(fill))
    assert (second.inclusion, second.fill) == (1.0, 1.0)


class Told:
    spec = SimpleNamespace(as_dict=lambda: {"name": "told"})

    def detect(self, picture, words):
        return {"cat": [box(0, 0, 40, 80)], "dog": []}[words]


def test_a_folder_is_scored_picture_by_picture(tmp_path):
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    Image.new("RGB", (80, 80)).save(tmp_path / "without_a_plan.png")
    write_plans([LEFT_AND_RIGHT], tmp_path / "a.json")
    means = score(tmp_path, tmp_path, Told(), tmp_path / "out")
    assert means == {"pictures": 1, "found": 0.5, "inclusion": 0.5, "fill": 0.5}
    told = json.loads((tmp_path / "out" / "placement.json").read_text())
    assert [each["found"] for each in told["pictures"]["a.png"]] == [True, False]


def test_what_cannot_be_scored_is_said(tmp_path):
    with pytest.raises(SqueezeError, match="None of the 0 pictures"):
        score(tmp_path / "none", tmp_path, Told(), tmp_path)
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    nameless = LEFT_AND_RIGHT.model_dump() | {"subjects": [{"number": n, "caption": "x"} for n in (1, 2)]}
    write_plans([ScenePlan.parse(nameless)], tmp_path / "a.json")
    with pytest.raises(SqueezeError, match="no name to look for"):
        score(tmp_path, tmp_path, Told(), tmp_path)
