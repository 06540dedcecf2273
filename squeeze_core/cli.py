"""`squeeze ...`, the same program as `python -m squeeze_core.cli`."""

from __future__ import annotations

import errno
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

COMMANDS = ("demo", "generate", "plan", "data", "train", "export", "convert", "eval", "toyworld", "bench", "doctor")
# What an OSError says of a place that the user chose.
_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST}
_PACKAGE = f"{__package__}.commands"


def app() -> typer.Typer:
    """The program with every command that this installation has."""
    import typer

    from .commands import add_commands

    program = typer.Typer(
        name="squeeze",
        help="Subject-driven generation with a multimodal LLM and FLUX.1. Try it: squeeze demo",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @program.callback(invoke_without_command=True)
    def root(version: bool = typer.Option(False, "--version", help="Show the version and exit.")) -> None:
        if version:
            from . import __version__

            print(f"squeeze {__version__}")
            raise typer.Exit()

    add_commands(program, _PACKAGE, COMMANDS)
    return program


def main() -> None:
    """Run. What the user did wrong becomes one line on stderr and exit status 2, never a traceback."""
    from .errors import SqueezeError

    # Before torch is loaded. Where other programs want the cores too, threads that spin while they wait make
    # small models several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()()
    except SqueezeError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == (__package__ or "").partition(".")[0] or find_spec(package or "?") is not None:
            raise  # a mistake of ours, not a missing package
        _fail(f'The package "{package}" is missing. Install it with: pip install "squeeze-mllm[demo]"')
    except Exception as error:
        message = _of_the_disk(error)
        if message is None:
            raise
        _fail(message)


def _of_the_disk(error: Exception) -> str | None:
    """What to do about a full disk or a place that cannot be written to; None for any other error."""
    from .files import is_disk_full

    if is_disk_full(error):
        return f"The disk is full ({error}). Free some room and try again."
    if isinstance(error, OSError) and error.filename is not None and error.errno in _PLACE:
        return f'"{error.filename}": {error.strerror}. Choose another place.'
    return None


def _fail(message: str) -> None:
    print(f"squeeze: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
