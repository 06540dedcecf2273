"""A `Result` -> files: JSON with everything, Markdown for people, the worst cases as a contact sheet.

Our row stands among the paper's, which are marked as published: they were measured by others, on their pictures.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SqueezeError
from ..files import whole, write_text
from ..vision.registry import deviates
from . import statistics
from .published import TABLES, Table
from .results import Metric, PictureScore, Result, from_dict, weighted_mean
from .statistics import Comparison, Interval, bootstrap

if TYPE_CHECKING:
    from PIL.Image import Image

    from .cases import Benchmark

FORMAT = 1
FIELDS = ("category", "subject", "prompt")
WORST = 12
_PROBLEMS_SHOWN = 50


def interval(result: Result, metric: str) -> Interval | None:
    """Bootstrap interval of a metric over subjects."""
    kept = [row for row in result.pictures if row.score(metric) is not None]
    return bootstrap(
        [row.score(metric) or 0.0 for row in kept],
        [row.subject for row in kept],
        [row.weight(metric) for row in kept],
    )


def compare(first: Result, second: Result, metric: str) -> Comparison | None:
    """second minus first, case by case."""
    a, b = (
        {row.key: score for row in result.pictures if (score := row.score(metric)) is not None}
        for result in (first, second)
    )
    return statistics.compare(a, b)


def write(
    result: Result,
    folder: Path,
    pictures: Path | None = None,
    against: Result | None = None,
    benchmark: Benchmark | None = None,
) -> list[Path]:
    """NAME.json, NAME.md and, where the pictures are at hand, NAME_worst.png in a folder: the paths written.

    pictures: the folder that was scored. against: an earlier result, for a paired comparison. benchmark: what
    was asked; with it the worst cases stand beside their references.
    """
    name = re.sub(r"[^a-z0-9]+", "_", result.benchmark.lower()).strip("_")
    name = f"{name}_{'_'.join(metric.key for metric in result.metrics[:1])}" if result.metrics else name
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.json", folder / f"{name}.md"]
    write_text(written[0], json.dumps(to_json(result, against), indent=1, ensure_ascii=False) + "\n")
    write_text(written[1], to_markdown(result, against))
    sheet = worst_cases(result, pictures, benchmark) if pictures is not None else None
    if sheet is not None:
        written.append(folder / f"{name}_worst.png")
        with whole(written[-1]) as temporary:
            sheet.save(temporary)
    return written


def read(path: Path) -> Result:
    """A report written as JSON before. Raises `SqueezeError`."""
    if path.is_dir():
        raise SqueezeError(f'"{path}" is a folder. Give the .json file of an earlier report.')
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise SqueezeError(f'"{path}" has the format {data["format"]}; this version reads {FORMAT}.')
        return from_dict(data["result"])
    except SqueezeError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SqueezeError(f'"{path}" is no report of squeeze eval ({error}). Give its .json file.') from error


def to_json(result: Result, against: Result | None = None) -> dict[str, Any]:
    """Everything, with means, intervals, tables by subject and by prompt, and what it was measured with."""
    summary = {}
    for metric in result.metrics:
        found = interval(result, metric.key)
        summary[metric.key] = {
            "mean": result.mean(metric.key),
            "interval": vars(found) if found else None,
            "pictures": result.counted(metric.key),
        }
    data: dict[str, Any] = {
        "format": FORMAT,
        "summary": summary,
        **{f"by_{field}": by(result, field) for field in FIELDS},
        "versions": versions(),
        "result": result.as_dict(),
    }
    if against is not None:
        pairs = {m.key: compare(against, result, m.key) for m in result.metrics}
        data["comparison"] = {
            "with": against.label,
            "metrics": {key: vars(found) if found else None for key, found in pairs.items()},
        }
    # NaN is no JSON; a score that is none is null.
    return _finite(data)


def to_markdown(result: Result, against: Result | None = None) -> str:
    """The report as people read it."""
    parts = [f"# {result.benchmark}", _coverage(result), _main_table(result)]
    parts += [f"- {note}" for note in dict.fromkeys(result.notes)]
    if against is not None:
        parts += ["## Compared with " + against.label, _comparison(result, against)]
    for field in FIELDS:
        if field != "category" or len(by(result, field)) > 1:
            parts += [f"## By {field}", _group_table(result, field)]
    parts += ["## Measured with", *_backbones(result)]
    parts += [f"- {key}: {_shown(value)}" for key, value in result.settings.items()]
    if result.problems:
        parts += [f"## Problems ({len(result.problems)})"]
        parts += [f"- {problem}" + ("" if problem.scored else " (not scored)") for problem in result.problems[:50]]
        if len(result.problems) > _PROBLEMS_SHOWN:
            parts.append(f"- and {len(result.problems) - _PROBLEMS_SHOWN} more, in the JSON report")
    # A blank line between parts, but none inside a list.
    text = parts[0]
    for before, part in pairwise(parts):
        text += ("\n" if before.startswith("- ") and part.startswith("- ") else "\n\n") + part
    return text + "\n"


def by(result: Result, field: str) -> dict[str, dict[str, float | None]]:
    """Means by "category", "subject" or "prompt": its text, or its number where no text is known."""
    groups: dict[str, list[PictureScore]] = {}
    for row in result.pictures:
        names = {"category": row.category, "subject": row.subject, "prompt": row.text or str(row.prompt)}
        groups.setdefault(names[field], []).append(row)
    return {
        name: {
            metric.key: weighted_mean((row.score(metric.key), row.weight(metric.key)) for row in rows)
            for metric in result.metrics
        }
        for name, rows in sorted(groups.items(), key=lambda group: _natural(group[0]))
    }


def worst(result: Result, metric: Metric, count: int = WORST) -> list[PictureScore]:
    """The pictures with the worst scores of a metric, worst first."""
    rows = [row for row in result.pictures if row.score(metric.key) is not None]
    sign = 1 if metric.higher_is_better else -1
    return sorted(rows, key=lambda row: (sign * (row.score(metric.key) or 0.0), row.file))[:count]


def worst_cases(result: Result, folder: Path, benchmark: Benchmark | None = None) -> Any:
    """A contact sheet: a row a metric, at most three rows; None when no picture can be shown.

    With a benchmark, at the right of each picture the references that it was made from.
    """
    from ..contact_sheet import contact_sheet
    from .pictures import read as read_picture

    rows = []
    for metric in result.metrics[:3]:
        cells = []
        for row in worst(result, metric, 6):
            picture, _ = read_picture(folder / row.file) if (folder / row.file).is_file() else (None, [])
            if picture is not None:
                sample = benchmark.find(row.subject, row.prompt) if benchmark is not None else None
                picture = _beside(picture, sample.inputs if sample is not None else ())
                caption = f"{metric.title} {_number(row.score(metric.key), metric)}\n{row.file}\n{row.text[:34]}"
                cells.append((caption, picture))
        if cells:
            rows.append(cells)
    return (
        contact_sheet(rows, f"{result.benchmark}: worst cases", "a row a metric, the worst first") if rows else None
    )


def _beside(picture: Image, references: Sequence[Path]) -> Image:
    """A picture with its references, those that can be read, in a column at its right."""
    from PIL import Image as Images
    from PIL import ImageOps

    from .pictures import read as read_picture

    shown = [found for path in references if (found := read_picture(path)[0]) is not None]
    if not shown:
        return picture
    side = picture.height // max(3, len(shown))
    sheet = Images.new("RGB", (picture.width + side, picture.height), "white")
    sheet.paste(picture, (0, 0))
    for row, reference in enumerate(shown):
        sheet.paste(
            ImageOps.pad(reference.convert("RGB"), (side, side), color="white"), (picture.width, row * side)
        )
    return sheet


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("squeeze-mllm", "torch", "transformers", "Pillow", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _coverage(result: Result) -> str:
    subjects = len({row.subject for row in result.pictures})
    text = f"{len(result.pictures)} pictures of {subjects} subject{'s' * (subjects != 1)} scored"
    if result.asked is None or len(result.pictures) == result.asked:
        return text + "."
    return text + f"; the whole benchmark has {result.asked} pictures, so that this is **not the full protocol**."


def _main_table(result: Result) -> str:
    table = TABLES.get(result.table or "")
    metrics = list(result.metrics)
    head = ["Method", *(_title(metric) for metric in metrics), "Source"]
    rows = _published_rows(table, metrics) if table else []
    ours = []
    for metric in metrics:
        found = interval(result, metric.key)
        mean = _number(result.mean(metric.key), metric)
        bounds = (
            f" [{_number(found.low, metric)}, {_number(found.high, metric)}]" if found and found.groups > 1 else ""
        )
        ours.append(f"**{mean}**{bounds}")
    rows.append([f"**{result.label}**", *ours, "measured here"])
    caption = "In brackets: 95% bootstrap interval over subjects."
    caption += "".join(f" **{text}**" for spec in result.backbones if table and (text := deviates(spec)))
    if table:
        caption += f" Rows marked published: {table.title}, {table.source}, not measured here."
        if not table.comparable:
            caption += " They do not compare with this row."
    return _table(head, rows) + "\n\n" + caption


def _published_rows(table: Table, metrics: Sequence[Metric]) -> list[list[str]]:
    rows = []
    for method, values in table.rows:
        known = dict(zip(table.columns, values))
        if any(metric.key in known for metric in metrics):
            cells = [_number(known.get(metric.key), metric) for metric in metrics]
            rows.append([method, *cells, "published" if table.comparable else "published, another set"])
    return rows


def _group_table(result: Result, field: str) -> str:
    head = [field.capitalize(), *(_title(metric) for metric in result.metrics)]
    rows = [
        [name, *(_number(means[metric.key], metric) for metric in result.metrics)]
        for name, means in by(result, field).items()
    ]
    return _table(head, rows)


def _comparison(result: Result, against: Result) -> str:
    head = ["Metric", "Difference", "95% interval", "p", "Better / worse / equal", "Cases"]
    rows = []
    for metric in result.metrics:
        found = compare(against, result, metric.key)
        if found is None:
            rows.append([metric.title, "no case in common", "", "", "", ""])
            continue
        better, worse = (found.wins, found.losses) if metric.higher_is_better else (found.losses, found.wins)
        bounds = f"[{_number(found.low, metric)}, {_number(found.high, metric)}]"
        counts = f"{better} / {worse} / {found.ties}"
        p = "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"
        rows.append([metric.title, _number(found.difference, metric), bounds, p, counts, str(found.cases)])
    note = "This run minus the other, case by case; p from flipping the signs of whole subjects."
    mine, theirs = ({b["weights"] for b in each.backbones} for each in (result, against))
    if mine != theirs:
        note += " **The two were measured with different models, and do not compare.**"
    return _table(head, rows) + "\n\n" + note


def _backbones(result: Result) -> list[str]:
    lines = []
    for spec in result.backbones:
        revision = spec["revision"] or "unknown"
        sizes = _shown({**spec.get("architecture", {}), **spec["preprocessing"]})
        lines.append(
            f"- {spec['role']}: {spec['repository'] or spec['name']}, revision {revision}, "
            f"weights sha256 {spec['weights'][:16]}, {sizes}"
        )
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _title(metric: Metric) -> str:
    return f"{metric.title} {'↑' if metric.higher_is_better else '↓'}"


def _number(value: float | None, metric: Metric) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{metric.digits}f}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return "/".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts "2 subjects" before "10 subjects"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
