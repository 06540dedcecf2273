"""`--help` of every command is for people."""

import re

import click
import pytest
import typer
from typer.testing import CliRunner

from squeeze_core.cli import app


def commands(command, path=()):
    inner = getattr(command, "commands", None)
    if not inner:
        yield path, command
        return
    for name, below in inner.items():
        yield from commands(below, (*path, name))


ALL = list(commands(typer.main.get_command(app())))


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
def test_help_has_no_python_types_and_shows_defaults(path):
    text = CliRunner().invoke(app(), [*path, "--help"]).output
    assert "Usage:" in text
    assert not re.search(r"<[a-z]|list\[|Optional", text), text
    assert "Options:" in text


@pytest.mark.parametrize(
    "path, command", ALL, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_option_that_takes_a_value_is_explained(path, command):
    for option in command.params:
        if isinstance(option, click.Option) and option.name != "help":
            assert option.help or option.show_default, f"{path} {option.name}"
