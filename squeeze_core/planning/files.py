"""Plan files: JSON of one plan, or of several as {"plans": [...]}, the best first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import SqueezeError
from ..files import decoded_text, whole
from .plan import ScenePlan

_MOST_BYTES = 4 * 2**20
_MOST_PLANS = 100


def read_plans(path: Path) -> tuple[ScenePlan, ...]:
    """UTF-8, with or without a byte order mark, or UTF-16 with one. Raises `SqueezeError`."""
    if not path.is_file():
        raise SqueezeError(f'There is no plan at "{path}". Check the name and the folder.')
    if path.stat().st_size > _MOST_BYTES:
        raise SqueezeError(f'"{path.name}" has {path.stat().st_size:,} bytes; a plan file has a few thousand.')
    try:
        text = decoded_text(path.read_bytes())
    except ValueError as error:
        raise SqueezeError(f'"{path.name}" is no text in UTF-8 ({error}). Save it as UTF-8.') from error
    return parse_plans(text, f'"{path.name}"')


def parse_plans(text: str, what: str = "The plan") -> tuple[ScenePlan, ...]:
    """JSON of one plan or of several. what: its name in errors. Raises `SqueezeError`."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        why = "ends before the plan does: it was cut off" if cut else f"is no JSON at line {error.lineno}"
        raise SqueezeError(f"{what} {why} ({error.msg}). Write it again, or correct it.") from error
    except RecursionError as error:
        raise SqueezeError(f"{what} is no plan: its brackets are nested too deep.") from error
    if not isinstance(value, dict) or "plans" not in value:
        return (ScenePlan.parse(value, what),)
    plans = value["plans"]
    if not isinstance(plans, list) or not 1 <= len(plans) <= _MOST_PLANS:
        raise SqueezeError(f'{what} must hold a list of 1 to {_MOST_PLANS} plans under "plans".')
    return tuple(ScenePlan.parse(plan, f"Plan {number} of {what}") for number, plan in enumerate(plans, start=1))


def plans_text(plans: Sequence[ScenePlan]) -> str:
    """What `parse_plans` reads."""
    return '{"plans": [\n' + ",\n".join(plan.to_json() for plan in plans) + "\n]}\n"


def write_plans(plans: Sequence[ScenePlan], path: Path) -> Path:
    """Write a plan file whole or not at all. Raises `SqueezeError`."""
    try:
        with whole(path) as temporary:
            temporary.write_bytes(plans_text(plans).encode())
    except OSError as error:
        raise SqueezeError(f'"{path}" cannot be written ({error.strerror or error}).') from error
    return path


def pick(plans: Sequence[ScenePlan], number: int) -> ScenePlan:
    """Plan `number`, the first is 1. Raises `SqueezeError`."""
    if not 1 <= number <= len(plans):
        there = "is 1 plan" if len(plans) == 1 else f"are {len(plans)} plans"
        raise SqueezeError(f"Plan {number} is asked for, and there {there}. The first is 1.")
    return plans[number - 1]
