"""Scores of a few pictures against references and a prompt, in memory: to show them, or to keep the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from ..errors import SqueezeError
from ..vision.backbones import Clip, Dino, cosines
from ..vision.batches import Progress, in_batches
from ..vision.orientation import OrientAnything
from .measures.pose import UNSURE, azimuth_difference, polar_difference

if TYPE_CHECKING:
    from PIL.Image import Image

RankBy = Literal["identity", "text", "identity + text", "pose"]
RANKINGS: tuple[RankBy, ...] = get_args(RankBy)
MISSING = math.nan
_FIRST = 8  # pictures at once, at most


@dataclass(frozen=True)
class BatchScores:
    """One value a picture; NaN where a score was not measured.

    identity: mean cosine with the references, by DINO, else by CLIP (`identity_by` says which). text: CLIP's
    cosine with the prompt. pose: mean difference of azimuth to the references, degrees, 0 to 180; 0 is a copied
    pose. polar: likewise. best: index of the best picture by the ranking asked for.
    """

    identity: list[float]
    text: list[float]
    pose: list[float]
    polar: list[float]
    best: int
    ranked_by: RankBy
    identity_by: str
    notes: tuple[str, ...]

    def report(self) -> str:
        """A line a picture, the best marked."""
        lines = ["picture  identity    text    pose"]
        for i, (identity, text, pose) in enumerate(zip(self.identity, self.text, self.pose)):
            cells = f"{_cell(identity, 4):>8}  {_cell(text, 4):>6}  {_cell(pose, 0):>6}"
            lines.append(f"{i:>7}  {cells}{'  best' if i == self.best else ''}")
        means = [_mean(values) for values in (self.identity, self.text, self.pose)]
        lines.append(f"   mean  {_cell(means[0], 4):>8}  {_cell(means[1], 4):>6}  {_cell(means[2], 0):>6}")
        return "\n".join([*lines, "", *self.notes])


def score(
    pictures: Sequence[Image],
    references: Sequence[Image] = (),
    prompt: str = "",
    *,
    dino: Dino | None = None,
    clip: Clip | None = None,
    orientation: OrientAnything | None = None,
    rank_by: RankBy = "identity + text",
    progress: Progress | None = None,
) -> BatchScores:
    """Score pictures by whichever models are given. RGB of any size.

    Identity and pose need references, text needs a prompt. "identity + text" adds the two cosines; "pose" prefers
    the pose that is furthest from the references'. Orientation is read off the whole picture: crop to the subject
    for numbers as in Table 2. Raises `SqueezeError` when nothing can be measured, or not what is ranked by.
    """
    if rank_by not in RANKINGS:
        raise SqueezeError(f'Pictures cannot be ranked by "{rank_by}"; choose {", ".join(RANKINGS)}.')
    if not pictures:
        raise SqueezeError("There is no picture to score.")
    notes: list[str] = []
    clip_vectors = vectors(clip, pictures, progress) if clip and (prompt.strip() or not dino) else None
    missing = [MISSING] * len(pictures)
    identity, text, pose, polar, identity_by = missing, missing, missing, missing, ""
    if references and (eyes := dino or clip):
        made = clip_vectors if eyes is clip and clip_vectors is not None else vectors(eyes, pictures, progress)
        identity = cosines(made, vectors(eyes, references, progress)).mean(1).tolist()
        identity_by = "DINO" if dino else "CLIP"
        notes.append(f"identity: mean cosine with {_count(references)}, {identity_by} ({eyes.spec.name}).")
    if clip and clip_vectors is not None and prompt.strip():
        text = cosines(clip_vectors, clip.encode_texts([prompt]))[:, 0].tolist()
        notes.append(f"text: cosine with the prompt, CLIP ({clip.spec.name}).")
        if clip.is_too_long(prompt):
            notes.append(f"CLIP reads only the first {clip.max_tokens} tokens of this prompt.")
    if orientation and references:
        pose, polar, unsure = _poses(orientation, pictures, references, progress)
        notes.append(f"pose: degrees of azimuth from the references', {orientation.spec.name}, whole pictures.")
        if unsure:
            notes.append(f"In {unsure} pictures and references no clear front is seen: their pose is a guess.")
    best, how = _best(rank_by, identity, text, pose)
    return BatchScores(identity, text, pose, polar, best, rank_by, identity_by, (*notes, how))


def _best(
    rank_by: RankBy, identity: Sequence[float], text: Sequence[float], pose: Sequence[float]
) -> tuple[int, str]:
    """The best picture's index, and a sentence that says by what."""
    measured = {
        name: values
        for name, values in (("identity", identity), ("text", text), ("pose", pose))
        if not math.isnan(values[0])  # measured for all pictures or for none
    }
    if not measured:
        raise SqueezeError(
            "Nothing can be measured. Choose at least one model; identity and pose need a reference, text a prompt."
        )
    used = [name for name in rank_by.split(" + ") if name in measured]
    if not used:
        raise SqueezeError(
            f"The pictures are to be ranked by {rank_by}, which was not measured; there is {', '.join(measured)}. "
            "Choose another ranking, or give its model and what it compares with."
        )
    totals = [sum(row) for row in zip(*(measured[name] for name in used))]
    return max(range(len(totals)), key=totals.__getitem__), f"best: by {' + '.join(used)}."


def _poses(
    orientation: OrientAnything, pictures: Sequence[Image], references: Sequence[Image], progress: Progress | None
) -> tuple[list[float], list[float], int]:
    """Azimuth and polar differences of each picture, mean over the references; how many angles are guesses."""
    made, given = (
        in_batches(list(images), orientation.estimate, what="poses", first=_FIRST, progress=progress)
        for images in (pictures, references)
    )
    azimuths = [_mean([azimuth_difference(one.azimuth, other.azimuth) for other in given]) for one in made]
    polars = [_mean([polar_difference(one.polar, other.polar) for other in given]) for one in made]
    return azimuths, polars, sum(one.confidence < UNSURE for one in (*made, *given))


def vectors(encoder: Dino | Clip, pictures: Sequence[Image], progress: Progress | None) -> torch.Tensor:
    def encode(batch: Sequence[Image]) -> list[torch.Tensor]:
        return list(encoder.encode(batch))

    what = f"{encoder.spec.role} reads pictures"
    return torch.stack(in_batches(list(pictures), encode, what=what, first=_FIRST, progress=progress))


def _count(references: Sequence[Image]) -> str:
    return "the reference" if len(references) == 1 else f"{len(references)} references"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _cell(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
