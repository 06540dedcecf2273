"""Boxes in pixels, as ComfyUI's canvas gives them."""

import pytest

from squeeze_core.errors import SqueezeError
from squeeze_core.planning.grid import Box
from squeeze_core.planning.pixels import from_pixels, to_pixels

ONE = {"x": 10, "y": 20, "width": 30, "height": 40}


def test_one_box_a_list_and_lists_of_frames_are_read():
    expected = Box(0.1, 0.1, 0.3, 0.2)
    for given in (ONE, [ONE], [[ONE], [ONE, ONE]]):
        assert from_pixels(given, 100, 200) == [expected]
    assert from_pixels([], 100, 200) == []


def test_boxes_come_back_from_pixels_with_names_and_colours():
    boxes = {1: Box(0, 0, 0.5, 1), 2: Box(0.5, 0, 0.5, 1)}
    drawn = to_pixels(boxes, 100, 60, {1: "cat", 2: "dog"}, {1: "#000000", 2: "#ffffff"})
    assert [box["metadata"]["desc"] for box in drawn] == ["cat", "dog"]
    assert from_pixels(drawn, 100, 60) == [boxes[1], boxes[2]]


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (ONE | {"width": 0}, "Box 1 .* no area"),
        (ONE | {"height": -4}, "no area"),
        (ONE | {"x": 80}, "leaves the picture of 100 x 200 px"),
        (ONE | {"y": -1}, "leaves the picture"),
        (ONE | {"width": float("nan")}, "no area"),
        ({"x": 1}, "needs x, y, width and height"),
        (ONE | {"x": "1"}, "needs x, y, width and height"),
        (5, "needs x, y, width and height"),
    ],
)
def test_a_wrong_box_is_one_sentence(box, words):
    with pytest.raises(SqueezeError, match=words):
        from_pixels([box], 100, 200)


def test_what_is_no_list_of_boxes_and_a_picture_of_no_size_are_refused():
    with pytest.raises(SqueezeError, match="are a str"):
        from_pixels("boxes", 10, 10)
    with pytest.raises(SqueezeError, match="0 x 10"):
        from_pixels([ONE], 0, 10)
