"""What a DINO-like score says in a world where the truth is known.

In the toy world identity, prompt following and pose are read off a picture exactly. Beside them stands the cosine
to the reference that DINO-I is made of. Made-up "generators" whose faults are known show what it rewards: one
that hands the reference back scores highest, though the right picture has the same identity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import SqueezeError
from ...toyworld import measures, scenes
from ...toyworld.figures import COLOURS, Identity
from ...vision.batches import Progress, in_batches
from ...vision.registry import BackboneSpec
from ..embedding import PictureEncoder
from ..results import Metric, PictureScore, Result

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "toyworld"
METRICS = (
    Metric("likeness", "DINO-like", True),
    Metric("identity", "identity (true)", True),
    Metric("prompt", "prompt (true)", True),
    Metric("pose_variation", "pose variation (true)", True),
)
Generator = Callable[[scenes.Pair, int], np.ndarray]


def right(pair: scenes.Pair, number: int) -> np.ndarray:
    """What was asked for: the right subject, in a new pose, where the prompt says."""
    return scenes.render(pair.target)


def copied(pair: scenes.Pair, number: int) -> np.ndarray:
    """The reference itself: nothing of the prompt."""
    return scenes.render(pair.references[0])


def pasted(pair: scenes.Pair, number: int) -> np.ndarray:
    """The copy-paste failure: the reference's subject, pose and all, on the background that was asked for."""
    reference = pair.references[0]
    return scenes.render(replace(pair.target, subjects=reference.subjects[:1]))


def other_colour(pair: scenes.Pair, number: int) -> np.ndarray:
    """The right scene and pose, one attribute of the identity wrong."""
    return _with_identity(pair, lambda identity: replace(identity, colour=_another_colour(identity, number)))


def someone_else(pair: scenes.Pair, number: int) -> np.ndarray:
    """The right scene and pose, another subject."""
    other = scenes.pair(7919, number, ONE).target.subjects[0].identity
    return _with_identity(pair, lambda identity: other)


GENERATORS: dict[str, Generator] = {
    "right": right,
    "copied": copied,
    "pasted": pasted,
    "other colour": other_colour,
    "someone else": someone_else,
}
ONE = scenes.WorldOptions(kinds=(("one", 1.0),), carrying=0.0, styles=(("a photo of", 1.0),), split="test")


def pairs(count: int, seed: int = 0) -> list[scenes.Pair]:
    """Single subjects of identities that no toy model was trained on."""
    return [scenes.pair(seed, number, ONE) for number in range(count)]


def score(
    pictures: Sequence[np.ndarray],
    asked: Sequence[scenes.Pair],
    encoder: PictureEncoder,
    *,
    label: str = "This run",
    progress: Progress | None = None,
) -> Result:
    """The truth and the DINO-like score of one picture a pair. pictures: [128, 128, 3] uint8 RGB.

    likeness: cosine of generated picture and reference, as in DINO-I. Raises `SqueezeError` for other numbers or
    sizes of pictures.
    """
    if len(pictures) != len(asked) or not asked:
        raise SqueezeError(f"There are {len(pictures)} pictures for {len(asked)} toy prompts. Give one for each.")
    size = (scenes.SIDE, scenes.SIDE, 3)
    for picture in pictures:
        if picture.shape != size or picture.dtype != np.uint8:
            raise SqueezeError(f"A toy picture is {picture.shape} {picture.dtype}; the measures read {size} uint8.")
    made = _encoded(pictures, encoder, f"{label}: pictures", progress)
    given = _encoded([scenes.render(pair.references[0]) for pair in asked], encoder, "references", progress)
    likeness = (made.double() * given.double()).sum(1)
    rows = []
    for number, (picture, pair) in enumerate(zip(pictures, asked)):
        truth = measures.score(picture, pair)
        scores = {"likeness": float(likeness[number]), "identity": truth.identity, "prompt": truth.prompt}
        if progress:
            progress(f"{label}: truth", number + 1, len(asked))
        rows.append(
            PictureScore(
                f"{label}/{number:04d}",
                f"{number:04d}",  # every pair has a subject of its own
                0,
                0,
                {**scores, "pose_variation": truth.pose_variation},
                text=pair.prompt,
            )
        )
    note = "identity, prompt and pose variation are read off the pictures exactly; only DINO-like is a network's."
    spec = encoder.spec.as_dict()
    return Result(NAME, METRICS, rows, backbones=[spec], notes=[note], asked=len(asked), label=label)


def demonstrate(
    encoder: PictureEncoder, count: int = 64, seed: int = 0, progress: Progress | None = None
) -> dict[str, Result]:
    """A result for each of `GENERATORS`, over the same pairs."""
    asked = pairs(count, seed)
    return {
        name: score([make(pair, n) for n, pair in enumerate(asked)], asked, encoder, label=name, progress=progress)
        for name, make in GENERATORS.items()
    }


def inflation(results: dict[str, Result]) -> dict[str, float]:
    """By how much the DINO-like score of each generator is above that of the right pictures."""
    base = results["right"].mean("likeness")
    assert base is not None
    return {name: (result.mean("likeness") or 0.0) - base for name, result in results.items()}


def correlation(results: Sequence[Result], truth: str = "identity") -> float | None:
    """Spearman's rank correlation of the DINO-like score with a true measure, over all pictures of all results."""
    both = [
        (row.score("likeness"), row.score(truth))
        for result in results
        for row in result.pictures
        if row.score(truth) is not None
    ]
    a, b = (_ranks(np.array(column, dtype=np.float64)) for column in zip(*both))
    if a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def markdown(results: dict[str, Result]) -> str:
    """What the numbers mean, with the table."""
    above = inflation(results)
    lines = [
        "# DINO-like scores and the truth, in the toy world",
        "",
        "| generator | " + " | ".join(metric.title for metric in METRICS) + " | above right |",
        "|---" * (len(METRICS) + 2) + "|",
    ]
    for name, result in results.items():
        means = [result.mean(metric.key) for metric in METRICS]
        cells = ["-" if mean is None else f"{mean:.3f}" for mean in means]
        lines.append(f"| {name} | {' | '.join(cells)} | {above[name]:+.3f} |")
    lines.append("")
    for name, what in (("copied", "handing the reference back"), ("pasted", "pasting it onto the background")):
        if name in results:
            verb = "raises" if above[name] > 0 else "lowers"
            lines.append(
                f"- Against the right pictures, {what} {verb} the DINO-like score by {abs(above[name]):.3f}."
            )
    for truth in ("identity", "prompt", "pose_variation"):
        value = correlation(list(results.values()), truth)
        if value is not None:
            lines.append(f"- Rank correlation of DINO-like with true {truth.replace('_', ' ')}: {value:+.2f}.")
    spec = next(iter(results.values())).backbones[0]
    count = len(next(iter(results.values())).pictures)
    lines.append(
        f"- {count} pairs of unseen identities; DINO-like is from {spec['name']} ({spec['weights'][:12]})."
    )
    return "\n".join(lines) + "\n"


class UntrainedViT:
    """DINO's architecture, tiny, with random weights drawn from a seed: a picture's class token.

    For runs without DINO's weights. Random features tell likeness of pictures, as DINO does, but not of things.
    """

    def __init__(self, seed: int = 0) -> None:
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(
            hidden_size=96,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=192,
            image_size=scenes.SIDE,
            patch_size=16,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model = ViTModel(config, add_pooling_layer=False).eval().requires_grad_(False)
            for parameter in self.model.parameters():
                if parameter.ndim > 1:  # transformers' 0.02 is so small that every picture gets nearly one vector
                    torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        name = "an untrained ViT of DINO's architecture, not DINO"
        self.spec = BackboneSpec("dino", name, "vit", "", "", f"seed-{seed}", {"resize": scenes.SIDE})

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Image]) -> torch.Tensor:
        rgb = [p.convert("RGB").resize((scenes.SIDE, scenes.SIDE)) for p in pictures]
        pixels = torch.stack([torch.from_numpy(np.array(p, dtype=np.float32)) for p in rgb])
        states = self.model(pixel_values=pixels.permute(0, 3, 1, 2) / 127.5 - 1).last_hidden_state
        return torch.nn.functional.normalize(states[:, 0], dim=-1)


def _encoded(
    pictures: Sequence[np.ndarray], encoder: PictureEncoder, what: str, progress: Progress | None
) -> torch.Tensor:
    from PIL import Image

    def work(batch: Sequence[np.ndarray]) -> list[torch.Tensor]:
        return list(encoder.encode([Image.fromarray(picture) for picture in batch]))

    return torch.stack(in_batches(pictures, work, what=what, progress=progress))


def _with_identity(pair: scenes.Pair, change: Callable[[Identity], Identity]) -> np.ndarray:
    subjects = tuple(replace(subject, identity=change(subject.identity)) for subject in pair.target.subjects)
    return scenes.render(replace(pair.target, subjects=subjects))


def _another_colour(identity: Identity, number: int) -> str:
    free = [colour for colour in COLOURS if colour not in (identity.colour, identity.second)]
    return free[number % len(free)]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ties share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
