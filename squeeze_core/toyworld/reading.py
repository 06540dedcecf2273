"""Reads a toy picture back: background, style, and each subject's identity and pose.

No learned judge: the background is the nearest one painted; what differs from it falls into connected pieces;
a piece's outline is compared with every figure at every turn, and its inside with every pattern in every two
colours. The same picture always reads the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from .backgrounds import BACKGROUNDS, painted
from .figures import COLOURS, FIGURES, OBJECTS, PATTERNS, SYMMETRY, Identity, Pose
from .scenes import SIDE, STYLES, Scene, Subject, render

TURNS = tuple(range(-40, 41, 4))  # degrees, about those that the world draws
_GRID = 40  # points a side at which outlines and insides are compared
_REACH = 1.15  # half the side of that grid around a figure's unit circle
_STANDS_OUT = 0.10  # of a colour channel, from every colour that the background has nearby
_LEAST_PIXELS = 120
_BLEED = 0.8 / SIDE  # a piece is that much larger all around than what it shows, because its edge is smooth
_EDGE = 0.11  # of the radius: left out of the inside, because of blur and of a drawing's ink


@dataclass(frozen=True)
class Found:
    """A subject as read. outline: agreement with its shape, intersection over union, 0 to 1."""

    identity: Identity
    pose: Pose
    outline: float


@dataclass(frozen=True)
class Reading:
    """background: None when none is near. subjects: largest first."""

    background: str | None
    style: str
    subjects: tuple[Found, ...]


def read(picture: np.ndarray) -> Reading:
    """Read a [128, 128, 3] uint8 picture. Raises `ValueError` for another shape or type."""
    if picture.shape != (SIDE, SIDE, 3) or picture.dtype != np.uint8:
        raise ValueError(f"A toy picture is [{SIDE}, {SIDE}, 3] uint8; got {list(picture.shape)} {picture.dtype}.")
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    background, differs = _background(pixels)
    pieces = _pieces(differs > _STANDS_OUT)
    subjects = tuple(_subject(pixels, piece) for piece in pieces)
    return Reading(background, _style(picture, background, subjects), subjects)


def read_within(picture: np.ndarray, places: np.ndarray) -> list[Found | None]:
    """The largest thing in each part of a picture, None where a part has none: toys that touch are told apart.

    picture: [128, 128, 3] uint8. places: [128, 128], the number of the part that a pixel belongs to, from 0.
    """
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    differs = _background(pixels)[1] > _STANDS_OUT
    found: list[Found | None] = []
    for number in range(int(places.max()) + 1):
        pieces = _pieces(differs & torch.from_numpy(places == number))
        found.append(_subject(pixels, pieces[0]) if pieces else None)
    return found


@lru_cache(maxsize=1)
def _backgrounds() -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the greatest value around every pixel: [backgrounds, 3, side, side] each.

    A range, so that lines a pixel off or blurred do not stand out.
    """
    pictures = torch.stack([torch.from_numpy(painted(name, SIDE).copy()) for name in BACKGROUNDS])
    pictures = pictures.permute(0, 3, 1, 2)
    return -F.max_pool2d(-pictures, 5, 1, 2), F.max_pool2d(pictures, 5, 1, 2)


def _background(pixels: torch.Tensor) -> tuple[str | None, torch.Tensor]:
    """The nearest background's name, and [side, side] by how much each pixel differs from it."""
    low, high = _backgrounds()
    pixels = F.avg_pool2d(F.pad(pixels[None], (1, 1, 1, 1), mode="replicate"), 3, 1)
    outside = (torch.maximum(low - pixels, pixels - high)).clamp(min=0).amax(1)
    distances = outside.clamp(max=0.2).mean((1, 2))
    # Ranges let a varied background cover a plain one: among those that cover, the plainest is meant.
    best = int((distances + 0.15 * (high - low).mean((1, 2, 3))).argmin())
    name = list(BACKGROUNDS)[best] if distances[best] < 0.13 else None
    return name, outside[best]


def _pieces(mask: torch.Tensor) -> list[torch.Tensor]:
    """The connected pieces of a [side, side] bool mask that are large enough to be subjects, largest first."""
    closed = -F.max_pool2d(-F.max_pool2d(mask[None].float(), 3, 1, 1), 3, 1, 1)[0]
    mask = closed > 0  # smooth edges between two colours can look like the background
    labels = torch.where(mask, torch.arange(1.0, mask.numel() + 1).view_as(mask), 0.0)
    while True:
        spread = F.max_pool2d(labels[None], 3, 1, 1)[0] * mask
        if torch.equal(spread, labels):
            break
        labels = spread
    values, counts = labels[mask].unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    return [labels == values[i] for i in order if counts[i] >= _LEAST_PIXELS]


@dataclass(frozen=True)
class _Outlines:
    """Every figure at every turn. masks: [n, _GRID ** 2], each centred on its middle of mass, at its own scale.

    middle: [n, 2] of mass, area: [n], both in the frame of the picture with the figure's radius as unit.
    """

    names: tuple[str, ...]
    turns: torch.Tensor
    masks: torch.Tensor
    middle: torch.Tensor
    area: torch.Tensor


@lru_cache(maxsize=1)
def _outlines() -> _Outlines:
    fine = torch.linspace(-1.05, 1.05, 161)
    x, y = torch.meshgrid(fine, fine, indexing="xy")
    names, turns, masks, middles, areas = [], [], [], [], []
    for name, inside in FIGURES.items():
        for turn in TURNS:
            u, v = _turned(x, y, torch.tensor(float(turn)))
            mask = torch.from_numpy(inside(u.numpy(), v.numpy())).float()
            middle = torch.stack([(mask * x).sum(), (mask * y).sum()]) / mask.sum()
            area = mask.sum() * (fine[1] - fine[0]) ** 2
            points = _grid() * area.sqrt() + middle
            masks.append(_sample(mask[None], points / 1.05)[0].flatten())
            names.append(name)
            turns.append(float(turn))
            middles.append(middle)
            areas.append(area)
    return _Outlines(
        tuple(names), torch.tensor(turns), torch.stack(masks), torch.stack(middles), torch.stack(areas)
    )


def _subject(pixels: torch.Tensor, piece: torch.Tensor) -> Found:
    """What figure, in what pose, colours and pattern, a piece shows."""
    outlines = _outlines()
    soft = piece.float()
    axis = (torch.arange(SIDE) + 0.5) / SIDE
    area = soft.mean()
    middle = torch.stack([(soft.sum(0) * axis).sum(), (soft.sum(1) * axis).sum()]) / soft.sum()
    seen = _sample(soft[None], (_grid() * area.sqrt() + middle) * 2 - 1)[0].flatten()
    overlap = torch.minimum(outlines.masks, seen).sum(1) / torch.maximum(outlines.masks, seen).sum(1)
    best = int(overlap.argmax())
    shape = outlines.names[best]
    radius = (area / outlines.area[best]).sqrt() - _BLEED
    centre = middle - outlines.middle[best] * radius
    turns = _likely_turns(shape, outlines, overlap)
    pattern, first, second, turn = _inside(pixels, shape, centre, radius, turns)
    pose = Pose(float(centre[0]), float(centre[1]), float(2 * radius), turn)
    return Found(Identity(shape, first, pattern, second), pose, float(overlap[best]))


def _likely_turns(shape: str, outlines: _Outlines, overlap: torch.Tensor) -> torch.Tensor:
    """Turns, in degrees, at which the outline fits about as well as at the best: the pattern decides."""
    mine = torch.tensor([name == shape for name in outlines.names])
    fits = overlap[mine]
    return outlines.turns[mine][fits >= fits.max() - 0.03]


def _inside(
    pixels: torch.Tensor, shape: str, centre: torch.Tensor, radius: torch.Tensor, turns: torch.Tensor
) -> tuple[str, str, str | None, float]:
    """The pattern, its colours and the turn that explain a figure's inside best."""
    weight, patterns = _insides(shape)
    grid = _grid(_REACH)
    x, y = _turned(grid[..., 0], grid[..., 1], -turns[:, None, None])
    points = (torch.stack([x, y], -1) * radius + centre) * 2 - 1
    seen = _sample(pixels.expand(len(turns), -1, -1, -1), points).flatten(2)
    palette = torch.tensor(list(COLOURS.values()))
    distance = (seen[:, None] - palette[None, :, :, None]).square().sum(2).clamp(max=1.0)  # [turns, colours, n]
    first = torch.einsum("tcn,pn->tpc", distance, weight * (1 - patterns))
    second = torch.einsum("tcn,pn->tpc", distance, weight * patterns)
    costs = first[..., :, None] + second[..., None, :]
    same = torch.eye(len(COLOURS), dtype=torch.bool)
    names = list(PATTERNS)
    is_plain = torch.tensor([name == "plain" for name in names])
    # A plain figure has one colour, a patterned one two.
    allowed = torch.where(is_plain[:, None, None], same, ~same)
    costs = costs.masked_fill(~allowed, torch.inf)
    best = int(costs.argmin())
    turn, pattern, a, b = (int(i) for i in np.unravel_index(best, costs.shape))
    colours = list(COLOURS)
    if shape in OBJECTS or names[pattern] == "plain":
        plain = int(first[turn, names.index("plain")].argmin())
        flat = first[:, names.index("plain")]
        return "plain", colours[plain], None, float(turns[int(flat.amin(1).argmin())])
    return names[pattern], colours[a], colours[b], float(turns[turn])


@lru_cache(maxsize=32)
def _insides(shape: str) -> tuple[torch.Tensor, torch.Tensor]:
    """In a figure's own frame: [n] which points lie well inside, [patterns, n] share of the second colour."""
    samples = 3
    fine = ((torch.arange(_GRID * samples) + 0.5) / (_GRID * samples) * 2 - 1) * _REACH
    x, y = (axis.numpy() for axis in torch.meshgrid(fine, fine, indexing="xy"))
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    inside = np.logical_and.reduce([FIGURES[shape](x + _EDGE * np.cos(a), y + _EDGE * np.sin(a)) for a in around])
    planes = np.stack([inside, *(plane(x, y) for plane in PATTERNS.values())])
    shares = F.avg_pool2d(torch.from_numpy(planes.astype(np.float32)), samples).flatten(1)
    return (shares[0] > 0.99).float(), shares[1:]


def _style(picture: np.ndarray, background: str | None, subjects: tuple[Found, ...]) -> str:
    """The style in which the scene as read, drawn again, comes nearest to the picture."""
    drawn_again = tuple(Subject(found.identity, found.pose) for found in reversed(subjects))
    ground = background or "on a grey background"

    again = {style: render(Scene(drawn_again, ground, style)).astype(np.float32) for style in STYLES}
    photo = again["a photo of"]

    def nearer(style: str) -> float:
        """How much nearer than the photo, where the two differ; a blurred photo is a little like pixel art."""
        differs = np.abs(again[style] - photo).max(-1) > 24
        if not differs.any():
            return -np.inf
        errors = (np.abs(other - picture)[differs].mean() for other in (photo, again[style]))
        return float(next(errors) * 0.9 - next(errors))

    best = max((style for style in STYLES if style != "a photo of"), key=nearer)
    return best if nearer(best) > 0 else "a photo of"


def _grid(reach: float = 1.6) -> torch.Tensor:
    """[_GRID, _GRID, 2] points (x, y) from -reach to reach, at the middles of cells."""
    axis = ((torch.arange(_GRID) + 0.5) / _GRID * 2 - 1) * reach
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)


def _turned(x: torch.Tensor, y: torch.Tensor, degrees: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the picture in the frame of a figure that is turned so."""
    turn = torch.deg2rad(degrees)
    return torch.cos(turn) * x + torch.sin(turn) * y, torch.cos(turn) * y - torch.sin(turn) * x


def _sample(planes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """[c, h, w] or [b, c, h, w] at points from -1 to 1, [.., n, m, 2]; zero outside."""
    batched = planes if planes.ndim == 4 else planes[None]
    sampled = F.grid_sample(batched, points if points.ndim == 4 else points[None], align_corners=False)
    return sampled if planes.ndim == 4 else sampled[0]


def turn_between(shape: str, a: float, b: float) -> float:
    """The smallest turn, in degrees, that takes one to the other; shapes look alike after part of a round."""
    period = SYMMETRY.get(shape, 360.0)
    if period == 0.0:
        return 0.0
    return abs((a - b + period / 2) % period - period / 2)
