"""What every scoring command does before and after its measure: find the cases, write and show the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import SqueezeError
from ..console import make_folder, say
from ..models import checked_device

if TYPE_CHECKING:
    from ...evaluation.cache import Cache
    from ...evaluation.cases import Benchmark
    from ...evaluation.generated_files import Generated
    from ...evaluation.pictures import Problem
    from ...evaluation.results import Result
    from .options import Asked


@dataclass(frozen=True)
class Case:
    """folder: of the pictures. out: for the report. problems: of naming and of the benchmark's data."""

    folder: Path
    out: Path
    benchmark: Benchmark
    generated: list[Generated]
    problems: list[Problem]
    label: str


def prepare(name: str, given: Asked, option: str = "") -> Case:
    """Pictures and cases of a benchmark (a key of `benchmarks.READERS`), and the report's folder.

    option: the one that gave the pictures, if neither --images nor --run.
    Raises `SqueezeError`, also when the report could not be written, which is better known before hours of work.
    """
    from ...evaluation import benchmarks
    from ...evaluation.generated_files import collect
    from ...evaluation.runs import check_made_for

    folder, data, label = resolve(given.images, given.run, given.data, given.label)
    if data is None:
        raise SqueezeError(f"Give --data, the folder of your copy of {name}'s data.")
    benchmark = benchmarks.read(name, data)
    check_made_for(folder, benchmark, option or ("--images" if given.run is None else "--run"))
    generated, problems = collect(folder, benchmark)
    return Case(
        folder, report_folder(given.out, folder), benchmark, generated, problems + benchmark.problems, label
    )


def report_folder(out: Path | None, folder: Path) -> Path:
    """--out, or scores/NAME of the pictures' folder; made. Raises `SqueezeError` when it cannot be written to."""
    out = out or Path("scores") / (folder.resolve().name or "run")
    make_folder(out)
    return out


def resolve(images: Path | None, run: Path | None, data: Path | None, label: str) -> tuple[Path, Path | None, str]:
    """(folder, data, label) from --images or --run; a run knows its data. Raises `SqueezeError`."""
    if (images is None) == (run is None):
        raise SqueezeError("Give either --images, a folder of pictures, or --run, made by squeeze eval generate.")
    folder = images if run is None else run
    assert folder is not None
    if run is not None:
        from ...evaluation.runs import read_run

        known = read_run(run)
        data = data or (Path(known["data"]) if known.get("data") else None)
        label = label or str(known.get("label", ""))
    return folder, data, label or folder.resolve().name


def earlier(against: Path | None) -> Result | None:
    """An earlier report, read before any long work. Raises `SqueezeError`."""
    from ...evaluation.report import read

    return None if against is None else read(against)


def cache(folder: Path | None) -> Cache:
    from ...evaluation.cache import Cache, default_folder

    chosen = folder or default_folder()
    make_folder(chosen)
    return Cache(chosen)


def device(name: str) -> str:
    """Raises `SqueezeError` for one that is not there."""
    if name:
        return checked_device(name)
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def finish(
    result: Result,
    folder: Path,
    out: Path,
    label: str,
    problems: Sequence[Problem] = (),
    against: Result | None = None,
    benchmark: Benchmark | None = None,
) -> None:
    """Write the report, show its means, and name the files on stdout.

    folder: of the pictures. out: for the report, from `report_folder`. benchmark: what was asked, to show
    references beside the worst cases.
    Raises `SqueezeError` when not one picture could be scored: a report would be empty.
    """
    from ...evaluation import report

    result.label = label
    result.problems = [*problems, *result.problems]
    for problem in result.problems[:20]:
        say(f"{problem}" if problem.scored else f"not scored: {problem}")
    if len(result.problems) > 20:
        say(f"... and {len(result.problems) - 20} more problems, all in the report")
    if not result.pictures:
        raise SqueezeError(f'Not one picture of "{folder}" could be scored; the lines above say why.')
    written = report.write(result, out, folder, against, benchmark)
    show(result)
    for path in written:
        print(path)


def show(result: Result) -> None:
    from rich.console import Console
    from rich.table import Table

    from ...evaluation.report import interval

    table = Table(title=f"{result.benchmark}: {result.label}, {len(result.pictures)} pictures")
    for name in ("measure", "mean", "95% interval", "pictures"):
        table.add_column(name, justify="left" if name == "measure" else "right")
    for metric in result.metrics:
        mean, found = result.mean(metric.key), interval(result, metric.key)
        bounds = f"{found.low:.{metric.digits}f} to {found.high:.{metric.digits}f}" if found else ""
        shown = "-" if mean is None else f"{mean:.{metric.digits}f}"
        table.add_row(metric.title, shown, bounds, str(result.counted(metric.key)))
    Console(stderr=True, highlight=False).print(table)
