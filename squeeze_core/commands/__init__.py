"""The commands of `squeeze`, one module each.

A module holds a function of its own name, with typer's options as parameters, and may hold EXAMPLE, a line for
the end of its help; or it holds GROUP, a function that gives a program of commands below it. Nothing heavy is
imported before a command runs, so that help comes at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import typer


_VALUES: dict[Any, str] = {Path: "PATH", int: "N", float: "NUMBER", str: "TEXT"}


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
            add_command(program, name, getattr(module, attribute), epilog)


def add_command(program: typer.Typer, name: str, command: Callable, epilog: str | None = None) -> None:
    """One command, whose help says of each option what a person gives (PATH, N), not its Python type."""
    from typer.models import OptionInfo

    hints = get_type_hints(command, include_extras=True)
    for annotation in hints.values():
        if get_origin(annotation) is not Annotated:
            continue
        kind, *extras = get_args(annotation)
        for extra in extras:
            if isinstance(extra, OptionInfo) and extra.metavar is None and _value(kind) is not None:
                extra.metavar = _value(kind)
    command.__annotations__ = hints  # else typer reads the texts of the annotations anew
    program.command(name, cls=_plain_help(), epilog=epilog)(command)


def _value(kind: Any) -> str | None:
    """None for a switch, which takes no value."""
    inner = [each for each in get_args(kind) if each is not type(None)]
    kind = inner[0] if inner else kind
    return None if kind is bool else _VALUES.get(kind, "TEXT")


def _plain_help() -> type:
    """typer's command, whose help has no Python types behind the names of arguments."""
    from typer.core import TyperCommand

    class PlainHelp(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            formatter.buffer[:] = [re.sub(r" <[a-z]+(\[\w+\])?( range)?>", "", piece) for piece in formatter.buffer]

    return PlainHelp
