"""What was built, for people: counts of every stage, models, and sheets of pictures to look at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...contact_sheet import contact_sheet
from ...files import write_text
from .record import Record
from .work import Work

if TYPE_CHECKING:
    from PIL.Image import Image

CARD = "data_card"
A_SHEET = 12  # samples
_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000")


def write(
    work: Work, records: Sequence[Record], counts: Mapping[str, Mapping[str, Any]], models: Mapping[str, str]
) -> dict[str, Any]:
    """data_card.json, data_card.md and sheets/. Returns what the first says."""
    sheets = _sheets(work, records)
    about = {
        "samples": len(records),
        "scenes": len({record.number for record in records}),
        "subjects": dict(sorted(Counter(len(record.subjects) for record in records).items())),
        "regions": dict(Counter("mask" if s.mask else "box" for r in records for s in r.subjects)),
        "stages": {name: dict(each) for name, each in counts.items()},
        "models": dict(models),
        "config": work.config.model_dump(mode="json"),
    }
    write_text(work.folder / f"{CARD}.json", json.dumps(about, indent=1) + "\n")
    write_text(work.folder / f"{CARD}.md", _markdown(about, sheets))
    return about


def _markdown(about: Mapping[str, Any], sheets: Sequence[str]) -> str:
    lines = [
        "# Data card",
        "",
        f"{about['samples']} samples of {about['scenes']} scenes, built by `squeeze data build`.",
    ]
    lines += ["", "| subjects | samples |", "|---|---|"]
    lines += [f"| {count} | {samples} |" for count, samples in about["subjects"].items()]
    lines += [
        "",
        "## Stages",
        "",
        "| stage | in | out | dropped | failed | went of the records |",
        "|---" * 6 + "|",
    ]
    for name, each in about["stages"].items():
        dropped, lost = (", ".join(f"{k} {v}" for k, v in each[part].items()) for part in ("dropped", "lost"))
        lines.append(f"| {name} | {each['in']} | {each['out']} | {dropped} | {each['failed']} | {lost} |")
    lines += ["", "## Models", "", "| for | model |", "|---|---|"]
    lines += [f"| {role} | {model} |" for role, model in about["models"].items()]
    lines += ["", "## Pictures", ""] + [f"![samples]({name})\n" for name in sheets]
    return "\n".join(lines) + "\n"


def _sheets(work: Work, records: Sequence[Record]) -> list[str]:
    """Of samples evenly from all: the target with its boxes, and the references."""
    wanted = min(work.config.sheets, len(records))
    shown = [records[number * len(records) // wanted] for number in range(wanted)]
    names = []
    for first in range(0, wanted, A_SHEET):
        rows = [_row(work, record) for record in shown[first : first + A_SHEET]]
        sheet = contact_sheet(rows, "Targets with boxes, and references", "MUSIC data", cell=192)
        names.append(work.keep(f"sheets/{first // A_SHEET + 1:03d}.png", sheet))
    return names


def _row(work: Work, record: Record) -> list[tuple[str, Image]]:
    words = _lines(record.prompt)
    row = [(f"{record.id}\n{words}", boxed(work.picture(record.target), record))]
    for number, subject in enumerate(record.subjects, start=1):
        assert subject.reference is not None
        region = "mask" if subject.mask else "box"
        row.append((f"{number}: {subject.name}\n{region}", work.picture(subject.reference)))
    return row


def _lines(text: str, width: int = 28) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:2])


def boxed(picture: Image, record: Record) -> Image:
    from PIL import ImageDraw

    picture = picture.copy()
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    for number, subject in enumerate(record.subjects):
        box, colour = subject.place, _COLOURS[number % len(_COLOURS)]
        corners = (box.left * width, box.top * height, box.right * width - 1, box.bottom * height - 1)
        draw.rectangle(corners, outline=colour, width=max(1, width // 128))
        draw.text((corners[0] + 3, corners[1] + 2), str(number + 1), fill=colour)
    return picture
