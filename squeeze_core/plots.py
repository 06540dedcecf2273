"""Two pictures for users: which sampling step sees what, and what each layer of the MLLM gives.

Drawn with Pillow alone, at twice the size and then reduced, so that lines and text come out smooth. Colours
are of Okabe and Ito's palette, which stays apart for colour-blind eyes.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from PIL import Image, ImageDraw, ImageFont

from .dla import LayerWeights
from .gate import Stage
from .gate_rows import GateRow, active_rows, step_stages

WIDTH = 1024
_SCALE = 2
_LEFT, _RIGHT, _MARGIN = 118, 1000, 24

_INK, _GREY, _GRID, _EMPTY, _PAPER = "#1a1a1a", "#5c5c5c", "#dcdcdc", "#f1f1f1", "#ffffff"
_CONTEXT, _REFERENCES, _BOTH, _ALARM = "#0072b2", "#e69f00", "#009e73", "#b53a00"
_STAGE_COLOUR = {Stage.EARLY: _CONTEXT, Stage.MIDDLE: _BOTH, Stage.LATE: _REFERENCES, None: "#8c8c8c"}


def plot_gate(
    sigmas: torch.Tensor,
    entries: Sequence[GateRow],
    warnings: Sequence[str] = (),
    *,
    context_name: str = "MLLM",
    title: str = "Which step sees what",
) -> Image.Image:
    """The sigma of every step, and which step sees the context and which the references.

    sigmas: [steps + 1], falling. warnings: lines to add below, such as those of `gate_warnings`.
    context_name: what made the context, for labels ("MLLM", "T5").
    Returns an RGB picture, 1024 px wide.
    """
    values = [float(sigma) for sigma in sigmas]
    steps = len(values) - 1
    stages = step_stages(sigmas, entries)
    top, height = 118, 270
    lanes = top + height + 44
    listing = lanes + 98
    notes = listing + 22 * len(entries) + (14 if warnings else 0)
    lines = [line for warning in warnings for line in textwrap.wrap(f"! {warning}", 120)]
    canvas = _Canvas(notes + 24 * len(lines) + 16)

    canvas.text(_MARGIN, 32, title, 25)
    canvas.text(_RIGHT, 34, f"{steps} steps", 17, _GREY, "rm")
    _stage_legend(canvas, stages, context_name)

    column = (_RIGHT - _LEFT) / max(steps, 1)
    highest = max([1.0, *values])

    def y_of(sigma: float) -> float:
        return top + height * (1 - sigma / highest)

    for stage, first, last in _runs(stages):
        canvas.box(
            _LEFT + first * column,
            top,
            _LEFT + last * column,
            top + height,
            _tint(_STAGE_COLOUR[stage], 0.16),
        )
    for tick in (0, 0.25, 0.5, 0.75, 1):
        canvas.line([(_LEFT, y_of(tick)), (_RIGHT, y_of(tick))], _GRID, 1)
        canvas.text(_LEFT - 10, y_of(tick), f"{tick:g}", 14, _GREY, "rm")
    canvas.text(_MARGIN, top + height / 2, "sigma", 15, _INK, "lm")
    _thresholds(canvas, entries, y_of)

    curve = [(_LEFT + (step + 0.5) * column, y_of(sigma)) for step, sigma in enumerate(values[:-1])]
    canvas.line([*curve, (_RIGHT, y_of(values[-1]))], _INK, 2)
    for (x, y), stage in zip(curve, stages):
        if column >= 8:  # closer together, their outlines would eat the curve
            canvas.dot(x, y, min(5.0, column / 5), _STAGE_COLOUR[stage])

    every = _tick_spacing(steps, column)
    for step in range(1, steps + 1):
        if step == 1 or step % every == 0:
            canvas.text(_LEFT + (step - 0.5) * column, top + height + 14, str(step), 14, _GREY, "mm")
    canvas.text(_MARGIN, top + height + 14, "step", 15, _INK, "lm")

    active = list(active_rows(sigmas, entries))
    _lane(canvas, lanes, context_name, _CONTEXT, [_context_cell(rows) for rows in active], column)
    _lane(canvas, lanes + 46, "references", _REFERENCES, [_reference_cell(rows) for rows in active], column)
    for number, row in enumerate(entries):
        y = listing + 11 + 22 * number
        canvas.box(_MARGIN, y - 6, _MARGIN + 12, y + 6, _STAGE_COLOUR[row.stage])
        canvas.text(_MARGIN + 22, y, textwrap.shorten(_described(row), 130), 14, _GREY, "lm")
    for number, line in enumerate(lines):
        canvas.text(_MARGIN, notes + 10 + 24 * number, line, 15, _ALARM, "lm")
    return canvas.picture()


def plot_layers(weights: LayerWeights) -> Image.Image:
    """Bars of what each layer gives to text tokens and to image tokens (Fig. 3b).

    Two bars a layer, on one scale: what reaches the pooled vector through attention, and the learned weight
    of the layer itself. Both are signed and add up to the same sum. Returns an RGB picture, 1024 px wide.
    """
    panels = (
        ("Text tokens", weights.text, weights.text_direct),
        ("Image tokens", weights.image, weights.image_direct),
    )
    height, gap, top = 190, 88, 132
    canvas = _Canvas(top + 2 * height + gap + 54)
    canvas.text(_MARGIN, 32, "What each layer of the MLLM gives", 25)
    x = _legend(canvas, _MARGIN, 70, _CONTEXT, "through attention, for this prompt")
    _legend(canvas, x, 70, _REFERENCES, "learned layer weight, for every prompt")
    for number, (title, attention, direct) in enumerate(panels):
        y = top + number * (height + gap)
        canvas.text(_LEFT, y - 20, title, 17)
        kinds = ((_CONTEXT, attention), (_REFERENCES, direct))
        bars = [(colour, [float(v) for v in values]) for colour, values in kinds if values is not None]
        sentence = ""
        if direct is None:
            sentence = "This variant has no layerwise attention pooling here."
        elif weights.note:
            sentence = weights.note
        elif attention is None:
            sentence = f"This prompt has no {title.lower()}; only the learned layer weights are shown."
        if sentence:
            canvas.text(_RIGHT, y - 20, sentence, 15, _GREY, "rm")
        _bars(canvas, y, height, bars)
    canvas.text((_LEFT + _RIGHT) / 2, canvas.height - 20, "layer (0 is the embedding)", 15, _GREY, "mm")
    return canvas.picture()


def _bars(canvas: _Canvas, top: float, height: float, bars: list[tuple[str, list[float]]]) -> None:
    if not bars:
        canvas.box(_LEFT, top, _RIGHT, top + height, _EMPTY)
        canvas.text((_LEFT + _RIGHT) / 2, top + height / 2, "no layer weights", 15, _GREY, "mm")
        return
    drawn = [[value if math.isfinite(value) else 0.0 for value in values] for _, values in bars]
    step, low, high = _scale([value for values in drawn for value in values])

    def y_of(value: float) -> float:
        return top + height * (high - value) / (high - low)

    for tick in range(round(low / step), round(high / step) + 1):
        canvas.line([(_LEFT, y_of(tick * step)), (_RIGHT, y_of(tick * step))], _GRID, 1)
        canvas.text(_LEFT - 10, y_of(tick * step), f"{tick * step:.6g}", 14, _GREY, "rm")
    canvas.text(_MARGIN, top + height / 2, "weight", 15, _INK, "lm")

    layers = len(drawn[0])
    column = (_RIGHT - _LEFT) / layers
    width = min(column * 0.38, 22)
    for number, ((colour, _), values) in enumerate(zip(bars, drawn)):
        shift = (number - len(bars) / 2) * width
        for layer, value in enumerate(values):
            x = _LEFT + (layer + 0.5) * column + shift
            canvas.box(x, min(y_of(value), y_of(0)), x + width, max(y_of(value), y_of(0)), colour)
    canvas.line([(_LEFT, y_of(0)), (_RIGHT, y_of(0))], _INK, 1.5)
    every = _tick_spacing(layers, column)
    for layer in range(0, layers, every):
        canvas.text(_LEFT + (layer + 0.5) * column, top + height + 14, str(layer), 14, _GREY, "mm")


def _scale(values: Sequence[float]) -> tuple[float, float, float]:
    """Tick spacing, lowest and highest tick: about four round ticks around all values and zero."""
    low, high = min(0.0, *values), max(0.0, *values)
    if high - low < 1e-12:
        return 0.5, 0.0, 1.0
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    return step, math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _stage_legend(canvas: _Canvas, stages: Sequence[Stage | None], context_name: str) -> None:
    counts = Counter(stages)
    meanings = {
        Stage.EARLY: f"{context_name} only",
        Stage.MIDDLE: f"{context_name} and references",
        Stage.LATE: "references only",
        None: "neither",
    }
    x: float = _MARGIN
    for stage, meaning in meanings.items():
        if stage is None and not counts[None]:
            continue
        name = f"{stage.name.lower()}: " if stage else ""
        x = _legend(canvas, x, 76, _STAGE_COLOUR[stage], f"{name}{meaning}, {_count(counts[stage], 'step')}")


def _legend(canvas: _Canvas, x: float, y: float, colour: str, text: str) -> float:
    canvas.box(x, y - 8, x + 16, y + 8, colour)
    canvas.text(x + 24, y, text, 16, _INK, "lm")
    return x + 24 + canvas.length(text, 16) + 28


def _thresholds(canvas: _Canvas, entries: Sequence[GateRow], y_of) -> None:
    """Dashed lines where ranges meet; inclusive ends are one float32 apart there, rounded away."""
    ends = {round(end, 4) for row in entries for end in (row.low, row.high) if 0 < end < 1}
    label_y = -math.inf
    for sigma in sorted(ends, reverse=True):
        canvas.dashed(_LEFT, _RIGHT, y_of(sigma), _GREY)
        label_y = max(y_of(sigma), label_y + 17)
        text = f"{sigma:g}"
        width = canvas.length(text, 14)
        canvas.box(_RIGHT - 10 - width, label_y - 8, _RIGHT - 2, label_y + 8, _PAPER)
        canvas.text(_RIGHT - 6, label_y, text, 14, _INK, "rm")


def _lane(
    canvas: _Canvas, y: float, name: str, colour: str, cells: Sequence[tuple[bool, str, str]], column: float
) -> None:
    """One bar a run of equal steps: filled where something is heard, empty where not; text as it fits."""
    canvas.text(_MARGIN, y + 18, name, 15, _INK, "lm")
    for (heard, long, short), first, last in _runs(cells):
        left, right = _LEFT + first * column, _LEFT + last * column
        canvas.box(left + 1, y, right - 1, y + 36, colour if heard else _EMPTY)
        ink = (_PAPER if colour == _CONTEXT else _INK) if heard else _GREY
        for text in (long, short):
            if canvas.length(text, 15) + 8 <= right - left:
                canvas.text((left + right) / 2, y + 18, text, 15, ink, "mm")
                break


def _context_cell(rows: Sequence[GateRow]) -> tuple[bool, str, str]:
    heard = [row for row in rows if row.mllm]
    tokens = " + ".join(str(row.context_tokens) for row in heard or rows)
    if heard:
        return True, f"{tokens} tokens", tokens
    if not rows:
        return False, "no entry", "-"
    if not any(row.context_tokens for row in rows):
        return False, "no words", "-"
    return False, f"{tokens} zero token{'' if tokens == '1' else 's'}", "-"


def _reference_cell(rows: Sequence[GateRow]) -> tuple[bool, str, str]:
    counts = [row.references for row in rows if row.references]
    if counts:
        number = " + ".join(str(count) for count in counts)
        return True, f"{number} picture{'' if number == '1' else 's'}", number
    return False, "none", "-"


def _described(row: GateRow) -> str:
    low, high = f"{row.low:.4g}", f"{row.high:.4g}"
    if row.low > row.high:
        where = "never"
    elif row.low <= 0:
        where = "every sigma" if row.high >= 1 else f"sigma below {high}"
    else:
        where = f"sigma from {low}" if row.high >= 1 else f"sigma {low} to {high}"
    context = _count(row.context_tokens, "token" if row.mllm else "zero token") if row.context_tokens else ""
    return ", ".join(part for part in (row.label, where, context, _count(row.references, "reference")) if part)


def _runs(values: Sequence) -> Iterator[tuple]:
    """(value, first, end) of each run of equal values."""
    start = 0
    for value, run in groupby(values):
        length = len(list(run))
        yield value, start, start + length
        start += length


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _tick_spacing(count: int, column: float) -> int:
    return next(every for every in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, count + 1) if every * column >= 24)


def _tint(colour: str, strength: float) -> str:
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * strength):02x}" for part in parts)


class _Canvas:
    """A white sheet in logical pixels, `_SCALE` times larger until `picture`."""

    def __init__(self, height: float) -> None:
        self.height = round(height)
        self.image = Image.new("RGB", (WIDTH * _SCALE, self.height * _SCALE), _PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        left, top, right, bottom = (round(value * _SCALE) for value in (left, top, right, bottom))
        if right > left and bottom > top:
            self.draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self.draw.line(scaled, fill=colour, width=round(width * _SCALE), joint="curve")

    def dashed(self, left: float, right: float, y: float, colour: str) -> None:
        for start in range(round(left), round(right), 9):
            self.line([(start, y), (min(start + 5, right), y)], colour, 1)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        x, y, r = x * _SCALE, y * _SCALE, radius * _SCALE
        self.draw.ellipse([x - r, y - r, x + r, y + r], fill=colour, outline=_PAPER, width=_SCALE)

    def text(self, x: float, y: float, text: str, size: float, colour: str = _INK, anchor: str = "lm") -> None:
        self.draw.text((x * _SCALE, y * _SCALE), text, fill=colour, font=_font(size), anchor=anchor)

    def length(self, text: str, size: float) -> float:
        return self.draw.textlength(text, font=_font(size)) / _SCALE

    def picture(self) -> Image.Image:
        return self.image.resize((WIDTH, self.height), Image.Resampling.LANCZOS)


def _font(size: float) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=size * _SCALE)
