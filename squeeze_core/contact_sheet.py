"""Pictures side by side with their captions, drawn with Pillow."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_CELL, _GAP, _LINE, _TOP = 224, 20, 18, 84
_INK, _GREY, _PAPER, _MAT = "#1a1a1a", "#5c5c5c", "#ffffff", "#f1f1f1"
_CAPTION_LINES = 3


def contact_sheet(rows: Sequence[Sequence[tuple[str, Image.Image]]], title: str, note: str = "") -> Image.Image:
    """A sheet of captioned pictures, row by row, each picture whole inside a square of 224 px.

    note: a line below the title. A caption may have up to three lines.
    """
    columns = max(len(row) for row in rows)
    row_height = _CELL + _LINE * _CAPTION_LINES + _GAP
    width = _GAP + columns * (_CELL + _GAP)
    sheet = Image.new("RGB", (width, _TOP + len(rows) * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 28), title, fill=_INK, font=ImageFont.load_default(size=22), anchor="lm")
    draw.text((_GAP, 60), note, fill=_GREY, font=ImageFont.load_default(size=14), anchor="lm")
    font = ImageFont.load_default(size=14)
    for i, row in enumerate(rows):
        for j, (caption, picture) in enumerate(row):
            left, top = _GAP + j * (_CELL + _GAP), _TOP + i * row_height
            draw.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=_MAT)
            shown = _fitted(picture)
            place = (left + (_CELL - shown.width) // 2, top + (_CELL - shown.height) // 2)
            sheet.paste(shown, place)
            for k, line in enumerate(caption.splitlines()[:_CAPTION_LINES]):
                y = top + _CELL + 14 + k * _LINE
                draw.text((left, y), line, fill=_INK if k == 0 else _GREY, font=font, anchor="lm")
    return sheet


def _fitted(picture: Image.Image) -> Image.Image:
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
