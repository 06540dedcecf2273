"""`squeeze eval NAME ...`: the paper's measures, and pictures for its benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import add_commands

if TYPE_CHECKING:
    import typer

EXAMPLE = "squeeze eval dreambench --images my_pictures --data dreambooth"
# One module each in `commands/evaluation`.
MEASURES = (
    "generate",
    "dreambench",
    "pose",
    "reasoning",
    "dreambench-plus",
    "ip-sim",
    "multi-subject",
    "regions",
    "placement",
    "stress",
    "user-study",
    "plans",
    "make-plans",
    "toyworld",
    "compare",
)


def GROUP() -> typer.Typer:
    import typer

    program = typer.Typer(
        help="Score pictures with the paper's measures, or make the pictures of a benchmark.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    add_commands(program, f"{__package__}.evaluation", MEASURES)
    return program
