"""What commands share: reading pictures, writing them whole, showing progress."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SqueezeError

if TYPE_CHECKING:
    from ..pipeline import Progress

_WORDS = {
    "encode": "MLLM reads",
    "plan": "MLLM plans",
    "references": "VAE encodes references",
    "sample": "FLUX samples",
    "decode": "VAE decodes",
    "picture": "Pictures to choose from",
}


def say(message: str) -> None:
    """A line for the user. On stderr, so that stdout holds only the names of what was written."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(message, markup=False)


def check_output(path: Path) -> None:
    """Before any long work: can this picture file be written? Raises `SqueezeError`."""
    if path.is_dir():
        raise SqueezeError(f'"{path}" is a folder. Give the name of a file in it.')
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise SqueezeError(f'"{path.name}" is no name of a picture. End it in .png, .jpg or .webp.')
    make_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Raises `SqueezeError` when the folder can neither be made nor written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SqueezeError(
            f'The folder "{folder}" cannot be written to ({error.strerror or error}). Choose another one.'
        ) from error


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr for each kind of work, as `SqueezePipeline.generate` reports it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(_WORDS.get(what, what), total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
