"""Least squares: a projector that says of words what the teacher said of them, before any step is trained.

Of the prompt's tokens the mean of what the teacher says of the same characters; of a picture's tokens the mean of
what it says of the words that tell who is shown; of the chat's own tokens, which the teacher never heard, nothing:
zeros. One linear map behind the projector's norm, by ridge regression in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...data.told import Span, Told
from ...dla import Aggregator
from ...mllm.backbone import Prompt
from ...mllm.family import TransformersBackbone
from ...mllm.states import LayerStates
from .teacher import Said, Words

RIDGE = 1e-3  # of the mean square of a feature, which is 1 behind the norm


@dataclass(frozen=True)
class Pair:
    """What the student reads, and what it is to say: [tokens, width]."""

    heard: LayerStates
    wanted: torch.Tensor


def pairs(
    told: Sequence[Told],
    prompts: Sequence[Prompt],
    mllm: TransformersBackbone,
    words: Words,
    device: torch.device,
) -> list[Pair]:
    """told[i] is read as prompts[i]."""
    heard = mllm.encode_many(prompts, device=device)
    said = words.encode([each.words for each in told])
    return [
        Pair(states, target(each, mllm.spans(prompt), states.image_mask, what))
        for each, prompt, states, what in zip(told, prompts, heard, said)
    ]


def target(told: Told, spans: Sequence[Span | None], image_mask: torch.Tensor, said: Said) -> torch.Tensor:
    """[tokens, width]: what the student's tokens are to say.

    spans: for each token the characters of the prompt that it stands for, None for the chat's own and for pictures.
    image_mask: [tokens].
    """
    wanted = torch.zeros(len(spans), said.states.shape[1], device=said.states.device)
    if told.prompt_at is not None:
        for number, span in enumerate(spans):
            if span is not None:
                mean = _mean(said, (span[0] + told.prompt_at, span[1] + told.prompt_at))
                if mean is not None:
                    wanted[number] = mean
    if told.shown is not None and (mean := _mean(said, told.shown)) is not None:
        wanted[image_mask.to(wanted.device)] = mean
    return wanted


def _mean(said: Said, wanted: Span) -> torch.Tensor | None:
    """Of the states of what stands for any of these characters."""
    over = [i for i, (begin, end) in enumerate(said.spans) if begin < end and begin < wanted[1] and end > wanted[0]]
    return said.states[over].mean(0) if over else None


class Projection:
    """Sums for the projector of one aggregator; no sample is kept. 230 MB for InternVL3-8B, on its device."""

    def __init__(self, aggregator: Aggregator) -> None:
        self.aggregator, linear = aggregator, aggregator.projector.linear
        self.count = 0
        # float64 where there is any.
        self._device = torch.device("cpu") if linear.weight.device.type == "mps" else linear.weight.device
        tall, wide = linear.in_features + 1, linear.out_features
        self._xx, self._xy, self._y = (
            torch.zeros(shape, dtype=torch.float64, device=self._device)
            for shape in ((tall, tall), (tall, wide), (wide,))
        )
        self._yy = 0.0

    @torch.no_grad()
    def add(self, pair: Pair) -> None:
        pooled, _ = self.aggregator.dla(pair.heard.states.float(), pair.heard.image_mask)
        x = self.aggregator.projector.norm(pooled).to(self._device, torch.float64)
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        y = pair.wanted.to(self._device, torch.float64)
        self.count += len(x)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._y += y.sum(0)
        self._yy += float(y.square().sum())

    @torch.no_grad()
    def set(self) -> float:
        """Put the map into the projector. Returns the share of what the teacher said that it explains."""
        ridge = RIDGE * self.count * torch.eye(len(self._xx), dtype=torch.float64, device=self._device)
        solved = torch.linalg.solve(self._xx + ridge, self._xy)
        left = self._yy - 2 * float((solved * self._xy).sum()) + float((solved * (self._xx @ solved)).sum())
        spread = self._yy - float(self._y.square().sum()) / self.count
        linear = self.aggregator.projector.linear
        linear.weight.copy_(solved[:-1].T)
        linear.bias.copy_(solved[-1])
        return 1 - left / spread
