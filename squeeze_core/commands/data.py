"""`squeeze data build`: MUSIC's data set, from a list of categories to samples that `squeeze train` reads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SqueezeError
from . import options
from .console import progress_bar, say

if TYPE_CHECKING:
    from ..data.music.config import MusicConfig
    from ..data.music.roles import Roles

EXAMPLE = "squeeze data build data/toys --config configs/toy_music_data.yaml"
EXECUTORS = ("local", "ray")


def data(
    action: Annotated[str, typer.Argument(help="build is all that there is.")],
    out: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    changes: options.Changes = None,
    config: Annotated[Path, typer.Option(help="A YAML config.")] = Path("configs/music_data.yaml"),
    executor: Annotated[str, typer.Option(help="local, or ray for many machines that share OUT.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="ray: most workers of a stage, one GPU each.")] = 8,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what was set aside.")] = False,
) -> None:
    """Make scenes of several subjects: targets, a reference of each subject, instructions and plans.

    The same command goes on where it stopped. A record that always fails is set aside with its reason.
    """
    if action != "build":
        raise SqueezeError(f'"{action}" is nothing to do with data; write build.')
    if executor not in EXECUTORS:
        raise SqueezeError(f'The executor is "{executor}"; accepted are {", ".join(EXECUTORS)}.')
    from ..data.music.build import build
    from ..data.music.config import ToyModels, load_config

    settings = load_config(config, changes or ())
    make = partial(roles_of, settings)
    work: Any = None
    if executor == "ray":
        from ..data.music.ray_executor import RayExecutor

        work = RayExecutor(make, workers)
    with progress_bar() as progress:
        about = build(out, settings, make(), executor=work, retry=retry, progress=progress)
    for name, each in about["stages"].items():
        gone = {**each["dropped"], **each["lost"]} | ({"set aside": each["failed"]} if each["failed"] else {})
        say(f"{name}: {each['in']} in, {each['out']} out" + "".join(f"; {k} {v}" for k, v in gone.items()))
    if isinstance(settings.models, ToyModels):
        _say_quality(out, settings)
    say(f"{about['samples']} samples of {about['scenes']} scenes. Look at them: {out / 'data_card.md'}")
    print(out)


def _say_quality(out: Path, settings: MusicConfig) -> None:
    """How well each filter filtered, which only a world knows whose truth is known."""
    from ..toyworld.music import ToyRoles, quality

    for name, each in quality(out, ToyRoles(settings).truths).items():
        shares = ("-" if share is None else f"{share:.2f}" for share in (each.precision, each.recall))
        say("{} caught what is wrong with precision {}, recall {}".format(name, *shares))


def roles_of(settings: MusicConfig) -> Roles:
    """The config's models, none of which is loaded yet."""
    from ..data.music.config import ToyModels

    if isinstance(settings.models, ToyModels):
        from ..toyworld.music import ToyRoles

        return ToyRoles(settings)
    from ..data.music.models import RealRoles

    return RealRoles(settings)
