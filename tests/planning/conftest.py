"""Plans to work with."""

import pytest

from squeeze_core.planning.plan import ScenePlan

HALVES = [[1, 1, 1, 1, 2, 2, 2, 2]] * 8


@pytest.fixture
def value():
    """A plan of two pictures as JSON gives it, to change."""
    return {
        "thought": "The red star stands left of the ring.",
        "scene": "a photo, on a beach",
        "subjects": [
            {"number": 1, "name": "star", "picture": 1, "caption": "a star, on the left, on a beach", "depth": 1},
            {"number": 2, "name": "ring", "picture": 2, "caption": "a ring, on the right, on a beach", "depth": 2},
        ],
        "relations": [{"subject": 1, "relation": "left of", "object": 2}],
        "grid": HALVES,
    }


@pytest.fixture
def plan(value):
    return ScenePlan.parse(value)
