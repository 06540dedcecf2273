"""The JSON schema that holds a model's plan to the form of `ScenePlan`, for one number of pictures and subjects."""

from __future__ import annotations

from typing import Any

from .grid import CELLS
from .plan import CAPTION, MOST_RELATIONS, MOST_SUBJECTS, NAME, RELATIONS, SCENE, THOUGHT

# No control characters, also not as escapes such as \n; the first sign is no space.
_SIGN = r"[^\x00-\x1f\x7f-\x9f]"
_FIRST = r"[^\x00-\x1f\x7f-\x9f ]"


def plan_schema(pictures: int, subjects: int | None = None) -> dict[str, Any]:
    """pictures: 0 to 12 references; subject n shows picture n, further subjects have words only.

    subjects: how many there are, at least as many as pictures; None leaves it to the model.
    """
    fewest = max(1, pictures) if subjects is None else subjects
    most = MOST_SUBJECTS if subjects is None else subjects
    described = [_subject(number, number if number <= pictures else None) for number in range(1, most + 1)]
    number = {"enum": list(range(1, most + 1))}
    relation = relation_of(number)
    row = list_of({"enum": list(range(most + 1))}, CELLS, CELLS)
    return object_of(
        thought=text(THOUGHT),
        scene=text(SCENE),
        subjects={
            "type": "array",
            "prefixItems": described,
            "items": False,
            "minItems": fewest,
            "maxItems": most,
        },
        relations=list_of(relation, 0, min(MOST_RELATIONS, 2 * most) if most > 1 else 0),
        grid=list_of(row, CELLS, CELLS),
    )


def _subject(number: int, picture: int | None) -> dict[str, Any]:
    return object_of(
        number={"const": number},
        name=text(NAME),
        picture={"const": picture},
        caption=text(CAPTION),
        depth={"enum": list(range(1, MOST_SUBJECTS + 1))},
    )


def relation_of(number: dict[str, Any]) -> dict[str, Any]:
    """number: the schema of a subject's number."""
    return object_of(subject=number, relation={"enum": list(RELATIONS)}, object=number)


def text(most: int) -> dict[str, Any]:
    """Of 1 to `most` signs."""
    return {"type": "string", "pattern": f"^{_FIRST}{_SIGN}{{0,{most - 1}}}$"}


def list_of(entry: dict[str, Any], fewest: int, most: int) -> dict[str, Any]:
    return {"type": "array", "items": entry, "minItems": fewest, "maxItems": most}


def object_of(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
