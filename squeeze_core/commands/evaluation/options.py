"""Options that the commands of `squeeze eval` share, so that each means the same everywhere."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

Images = Annotated[
    Path | None, typer.Option(help="Folder of pictures: SUBJECT/PROMPT_SEED.png or a manifest.json.")
]
Run = Annotated[Path | None, typer.Option(help="Instead of --images: a folder made by squeeze eval generate.")]
Data = Annotated[Path | None, typer.Option(help="Your copy of the benchmark's official data.")]
Models = Annotated[Path, typer.Option(help="Where the measures' models lie, a folder each.")]
ModelFolder = Annotated[Path | None, typer.Option(help="Folder of this model, instead of one below --models.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the report; default: scores/NAME.")]
Against = Annotated[Path | None, typer.Option(help="An earlier report (.json) for a paired comparison.")]
Label = Annotated[str, typer.Option(help="What to call this run in the table.")]
CacheFolder = Annotated[Path | None, typer.Option(help="Folder of cached results; default: the user's cache.")]
Device = Annotated[str, typer.Option(help="Such as cuda, cuda:1, cpu; empty: the GPU if there is one.")]

MODELS = Path("models")


@dataclass(frozen=True)
class Asked:
    """What every command of `squeeze eval` that scores pictures is asked."""

    images: Images = None
    run: Run = None
    data: Data = None
    out: Out = None
    against: Against = None
    label: Label = ""
    cache: CacheFolder = None
    device: Device = ""


def asked(command: Callable[..., None]) -> Callable[..., None]:
    """A command(given: Asked, its own options) -> one with all of these as options of its own."""
    shared = get_type_hints(Asked, include_extras=True)
    hints = get_type_hints(command, include_extras=True)
    _, *own = inspect.signature(command).parameters.values()
    fields = inspect.signature(Asked).parameters.values()
    every = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, *fields)]

    def run(**values: Any) -> None:
        command(Asked(**{name: values.pop(name) for name in shared}), **values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {each.name: {**shared, **hints}[each.name] for each in every} | {"return": None}
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(annotation=run.__annotations__[each.name]) for each in every]
    )
    return run
