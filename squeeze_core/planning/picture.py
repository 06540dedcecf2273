"""A plan as a picture: its grid in colours, with numbers and names. Drawn with Pillow alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .grid import CELLS, middle_of_cells
from .plan import ScenePlan

# Okabe and Ito's palette, which stays apart for colour-blind eyes, and lighter and darker ones of it.
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
    "#f0e442", "#004c77", "#8f6300", "#00694d", "#87506f", "#8c3e00",
)  # fmt: skip
_EMPTY, _LINE, _INK, _PAPER = "#f1f1f1", "#ffffff", "#1a1a1a", "#ffffff"


def colour_of(number: int) -> str:
    return COLOURS[(number - 1) % len(COLOURS)]


def draw_plan(plan: ScenePlan, width: int = 512, height: int = 512) -> Image.Image:
    """RGB picture of width x height pixels, at least 64 each: the grid, and who stands where."""
    width, height = max(64, width), max(64, height)
    picture = Image.new("RGB", (width, height), _EMPTY)
    draw = ImageDraw.Draw(picture)
    columns, rows = ([round(i * side / CELLS) for i in range(CELLS + 1)] for side in (width, height))
    for i, row in enumerate(plan.grid):
        for j, label in enumerate(row):
            corners = (columns[j], rows[i], columns[j + 1] - 1, rows[i + 1] - 1)
            draw.rectangle(corners, fill=colour_of(label) if label else _EMPTY, outline=_LINE)
    size = max(10, min(width, height) // 24)
    font = ImageFont.load_default(size=size)
    for subject in plan.subjects:
        box = plan.boxes.get(subject.number)
        if box is None:
            continue
        x, y = middle_of_cells(plan.grid, subject.number)
        letters = max(4, int(box.width * width / (0.55 * size)))
        lines = textwrap.wrap(f"{subject.number} {subject.name}", letters)[:3]
        text = "\n".join(lines)
        middle = (x * width, y * height)
        left, top, right, bottom = draw.multiline_textbbox(middle, text, font=font, anchor="mm", align="center")
        # Names stay inside the picture, readable on every colour.
        shift_x = max(4 - left, 0) + min(width - 4 - right, 0)
        shift_y = max(4 - top, 0) + min(height - 4 - bottom, 0)
        place = (left + shift_x - 4, top + shift_y - 3, right + shift_x + 4, bottom + shift_y + 3)
        draw.rectangle(place, fill=_PAPER)
        moved = (middle[0] + shift_x, middle[1] + shift_y)
        draw.multiline_text(moved, text, fill=_INK, font=font, anchor="mm", align="center")
    return picture


def draw_plans(plans: Sequence[ScenePlan], title: str, note: str = "") -> Image.Image:
    """All plans on one sheet, the best first."""
    from ..contact_sheet import contact_sheet

    shown = [
        (f"plan {number}\n{_short(plan.scene)}", draw_plan(plan)) for number, plan in enumerate(plans, start=1)
    ]
    rows = [shown[first : first + 4] for first in range(0, len(shown), 4)]
    return contact_sheet(rows, title, textwrap.shorten(note, 30 * len(rows[0]), placeholder=" ..."))


def _short(text: str) -> str:
    return textwrap.shorten(text, 32, placeholder=" ...")
