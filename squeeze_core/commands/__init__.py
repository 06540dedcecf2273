"""The commands of `squeeze`, one module each.

A module holds a function of its own name, with typer's options as parameters, and may hold EXAMPLE, a line for
the end of its help; or it holds GROUP, a function that gives a program of commands below it. Nothing heavy is
imported before a command runs, so that help comes at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def add_commands(program: typer.Typer, package: str, names: Iterable[str]) -> None:
    """Those commands of a package that this installation has. A name's "-" is "_" in its module."""
    for name in names:
        attribute = name.replace("-", "_")
        if find_spec(f"{package}.{attribute}") is None:
            continue
        module = import_module(f"{package}.{attribute}")
        example = getattr(module, "EXAMPLE", None)
        epilog = f"Example: {example}" if example else None
        if hasattr(module, "GROUP"):
            program.add_typer(module.GROUP(), name=name, epilog=epilog)
        else:
            program.command(name, epilog=epilog)(getattr(module, attribute))
