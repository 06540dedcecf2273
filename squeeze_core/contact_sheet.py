"""Pictures side by side with their captions, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL, _GAP, _LINE, _TOP = 224, 20, 18, 84
_INK, _GREY, _PAPER, _MAT = "#1a1a1a", "#5c5c5c", "#ffffff", "#f1f1f1"
_CAPTION_LINES = 3


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, Image.Image]]], title: str, note: str = "", *, cell: int = CELL
) -> Image.Image:
    """A sheet of captioned pictures, row by row, each picture whole inside a square.

    note: a line below the title. A caption may have up to three lines; the first is dark, and so is the rest where
    the caption is a quotation. cell: pixels a side of the square; letters grow with it, half as fast.
    """
    columns = max(len(row) for row in rows)
    grown = (1 + cell / CELL) / 2
    gap, line, top_edge = (round(each * grown) for each in (_GAP, _LINE, _TOP))
    large, small = (ImageFont.load_default(size=round(size * grown)) for size in (22, 14))
    row_height = cell + line * _CAPTION_LINES + gap
    width = gap + columns * (cell + gap)
    sheet = Image.new("RGB", (width, top_edge + len(rows) * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, round(28 * grown)), title, fill=_INK, font=large, anchor="lm")
    draw.text((gap, round(60 * grown)), note, fill=_GREY, font=small, anchor="lm")
    for i, row in enumerate(rows):
        for j, (caption, picture) in enumerate(row):
            left, top = gap + j * (cell + gap), top_edge + i * row_height
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=_MAT)
            shown = _fitted(picture, cell)
            place = (left + (cell - shown.width) // 2, top + (cell - shown.height) // 2)
            sheet.paste(shown, place)
            quoted = caption.startswith('"')
            for k, words in enumerate(caption.splitlines()[:_CAPTION_LINES]):
                y = top + cell + round(14 * grown) + k * line
                draw.text((left, y), words, fill=_INK if k == 0 or quoted else _GREY, font=small, anchor="lm")
    return sheet


def _fitted(picture: Image.Image, cell: int) -> Image.Image:
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
