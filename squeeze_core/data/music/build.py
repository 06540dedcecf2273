"""The stages, one after the other, each over all records that the one before kept.

OUT/build.json        what is built, so that no two builds share a folder
OUT/stages/           what each stage did with each record
OUT/targets, references, masks     pictures
OUT/samples.jsonl     the result, which training reads (kind: music)
OUT/data_card.md, sheets/          counts, models, and pictures to look at
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import SqueezeError
from ...files import is_disk_full, write_text
from ...vision.batches import Progress, is_out_of_memory
from ..examples import SourceFailure
from . import (
    boxes,
    captions,
    card,
    categories,
    decimation,
    grids,
    masks,
    references,
    targets,
    thoughts,
    verification,
)
from .config import MusicConfig
from .ledger import Ledger
from .record import Outcome, Record
from .roles import Role, Roles
from .work import Work

MOST_FAILED = 20  # records in a row, which is no fault of theirs
ABOUT, SAMPLES = "build.json", "samples.jsonl"


@dataclass(frozen=True)
class Stage:
    """run: records, the role's model and the work -> an outcome for each."""

    name: str
    role: Role
    run: Callable[[Sequence[Record], Any, Work], list[Outcome]]


STAGES = (
    Stage("categories", "writer", categories.run),
    Stage("captions", "writer", captions.run),
    Stage("targets", "painter", targets.run),
    Stage("boxes", "detector", boxes.run),
    Stage("verification", "judge", verification.run),
    Stage("references", "redrawer", references.run),
    Stage("masks", "segmenter", masks.run),
    Stage("grids", "none", grids.run),
    Stage("thoughts", "judge", thoughts.run),
    Stage("decimation", "none", decimation.run),
)


class Executor(Protocol):
    """Who does the work of a stage; in any order."""

    def __call__(
        self, stage: Stage, records: Sequence[Record], roles: Roles, work: Work
    ) -> Iterator[tuple[str, Outcome | str]]:
        """(id, outcome, or why it failed) of each record."""
        ...


def build(
    out: str | Path,
    config: MusicConfig,
    roles: Roles,
    *,
    executor: Executor | None = None,
    retry: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, Any]:
    """Build, or go on where it stopped. Returns what the card says.

    executor: None is this process. retry: try again what was set aside. Raises `SqueezeError` for a folder that
    holds something else, for a list of too few names, and for a full disk, whose folder stays as it is.
    """
    folder = Path(out).expanduser()
    _begin(folder, config)
    names = tuple(dict.fromkeys(roles.names()))
    if len(names) < config.subjects[0]:
        raise SqueezeError(
            f"The list of categories has {len(names)} names, and a scene needs {config.subjects[0]}. Give a longer "
            "one."
        )
    work = Work(config, folder, names)
    records = [Record(id=f"{number:06d}", number=number) for number in range(config.samples)]
    counts: dict[str, dict[str, Any]] = {}
    for place, stage in enumerate(STAGES, start=1):
        ledger = Ledger(folder / "stages" / f"{place:02d}_{stage.name}.jsonl")
        if retry:
            ledger.forget_failed()
        todo = [record for record in records if record not in ledger]
        in_a_row = 0
        try:
            for id, outcome in (executor or here)(stage, todo, roles, work) if todo else ():
                ledger.add(id, outcome)
                in_a_row = in_a_row + 1 if isinstance(outcome, str) else 0
                if in_a_row == MOST_FAILED:
                    raise SqueezeError(
                        f"{in_a_row} records in a row failed at stage {stage.name}, the last because: {outcome}. "
                        "Mend what is wrong and run it again with --retry; nothing is lost."
                    )
                progress(stage.name, len(ledger), len(records))
        except Exception as error:
            if not is_disk_full(error):
                raise
            raise _full(folder, stage, len(ledger), len(records), error) from error
        records, counts[stage.name] = ledger.kept(), ledger.counts()
    rows = [json.dumps(_sample(record)) + "\n" for record in records]
    write_text(folder / SAMPLES, "".join(rows))
    return card.write(work, records, counts, roles.described())


def here(stage: Stage, records: Sequence[Record], roles: Roles, work: Work) -> Iterator[tuple[str, Outcome | str]]:
    """This process, a batch at a time, with the one model that the stage needs."""
    model = roles.model(stage.role)
    for first in range(0, len(records), work.config.batch):
        yield from done(stage, records[first : first + work.config.batch], model, work)


def done(stage: Stage, records: Sequence[Record], model: Any, work: Work) -> Iterator[tuple[str, Outcome | str]]:
    """A batch; one that fails is done record by record, and a record that goes on failing is set aside."""
    try:
        outcomes = stage.run(records, model, work)
    except Exception as error:
        if _is_of_the_place(error):
            raise
        outcomes = None
    if outcomes is not None:
        yield from zip((record.id for record in records), outcomes, strict=True)
        return
    for record in records:
        yield record.id, _alone(stage, record, model, work)


def _alone(stage: Stage, record: Record, model: Any, work: Work) -> Outcome | str:
    problem = ""
    for _ in range(work.config.tries):
        try:
            return stage.run([record], model, work)[0]
        except Exception as error:
            if _is_of_the_place(error):
                raise
            if is_out_of_memory(error):
                raise _too_large(stage, error) from error
            problem = f"{type(error).__name__}: {error}" if not isinstance(error, SqueezeError) else str(error)
    return problem


def _is_of_the_place(error: Exception) -> bool:
    """Whether every record would fail alike."""
    return is_disk_full(error) or isinstance(error, (SourceFailure, PermissionError, NotImplementedError))


def _too_large(stage: Stage, error: Exception) -> SqueezeError:
    return SqueezeError(
        f"Memory does not suffice for a single record at stage {stage.name} ({str(error)[:120]}). Close other "
        "programs, or give a smaller model or resolution; what is done stays."
    )


def _begin(folder: Path, config: MusicConfig) -> None:
    about, identity = folder / ABOUT, config.identity()
    if not about.is_file():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise SqueezeError(f'"{folder}" holds something that is no build. Give a new or an empty folder.')
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(about, json.dumps(identity, indent=1) + "\n")
        except OSError as error:
            raise SqueezeError(f'"{folder}" cannot be written to ({error.strerror or error}).') from error
        return
    try:
        before = json.loads(about.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SqueezeError(f'"{about}" cannot be read ({error}). Build in a new folder.') from error
    for name in sorted(identity.keys() | before.keys()):
        if identity.get(name) != before.get(name):
            raise SqueezeError(
                f'"{folder}" holds another build: its {name} is {before.get(name)}, and now {identity.get(name)}. '
                "Give another folder, or the same config."
            )


def _full(folder: Path, stage: Stage, done: int, total: int, error: BaseException) -> SqueezeError:
    """What is there stays; how much room the rest of the stage may take is told by what is there."""
    used = sum(path.stat().st_size for path in (folder / "targets").glob("*")) if stage.name == "targets" else 0
    used = used or sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    more = used / max(1, done) * (total - done)
    free = shutil.disk_usage(folder).free
    return SqueezeError(
        f'The disk of "{folder}" is full ({error}) at stage {stage.name}, {done} of {total} records done. '
        f"It needs about {more / 2**20:,.0f} MiB more, and {free / 2**20:,.0f} are free. Make room, run it again."
    )


def _sample(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "prompt": record.prompt,
        "target": record.target,
        "references": [subject.reference for subject in record.subjects],
        "plan": record.plan,
    }
