"""Stage 0's loss: what FLUX predicts from the MLLM's states, against what it predicts from T5's.

One FLUX, frozen, is both: the teacher's context is T5's, the student's the aggregator's. No picture is painted
towards: at pure noise, or along the teacher's own sampling, the two predictions are compared.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ...data.examples import Walk
from ...data.told import Told
from ...flux import batching
from ...flux.batching import few_calls, velocities
from ...flux.conditioning import Conditioning
from ...flux.tokens import DOWNSCALE, PATCH
from ...mllm.backbone import Prompt
from ...mllm.family import TransformersBackbone
from ...sigmas import flux_mu, sigmas
from ..compiling import MULTIPLE
from ..flux_task import FluxTask, Models
from ..settings import LoopSettings
from .attention import divergence, heard_by_pictures
from .config import DistillConfig
from .fit import Projection, pairs
from .teacher import Words

FIT_BATCH = 8
# Of DistillConfig, besides the loop's: what may change when a run goes on,
_MAY_CHANGE = {"init", "words_cache", "gradient_checkpointing", "compile", "sampling"}
# and what the adapter's config, the data sets' names or the weights' hashes say.
_SAID_OTHERWISE = {"models", "data", "dla", "pooled", "system_prompt", "tiles"}


@dataclass(frozen=True)
class Sample:
    """One sample with every draw made. prompt: what the student reads. noise: [1, channels, H/8, W/8]. level: steps
    of the teacher's sampling before the two are compared."""

    told: Told
    prompt: Prompt
    noise: torch.Tensor
    level: int


@dataclass(frozen=True)
class Taught:
    """At latents and sigma of each sample the teacher predicts `velocity`, and its attention gave `attention`."""

    latents: torch.Tensor
    sigma: torch.Tensor
    velocity: torch.Tensor
    attention: list[torch.Tensor]


class DistillTask(FluxTask):
    """See `build.distill_task`, which loads the models that are taken here."""

    config: DistillConfig

    def __init__(self, config: DistillConfig, models: Models, walk: Walk[Told], words: Words) -> None:
        super().__init__(config, models)
        self.walk, self.words = walk, words
        side = config.resolution // DOWNSCALE
        self._tokens = (side // PATCH) ** 2
        # The levels of the teacher's sampling, without the last: nothing is predicted at 0.
        self._sigmas = sigmas("flux", config.distillation.steps, mu=flux_mu(self._tokens))[:-1]

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.words.model.to(device)

    def begin(self) -> None:
        """Fit the projector, if the config asks for it and the run begins with no other's."""
        wanted = 0 if self.config.init is not None else self.config.distillation.fit
        if not wanted:
            return
        mllm, aggregator = self.mllm, self.module.aggregator
        assert isinstance(mllm, TransformersBackbone)
        sums = Projection(aggregator)
        for first in range(0, wanted, FIT_BATCH):
            told = [self.walk.example(index) for index in range(first, min(wanted, first + FIT_BATCH))]
            for pair in pairs(told, [self._prompt(each) for each in told], mllm, self.words, self.device):
                sums.add(pair)
        explained = sums.set()
        if os.environ.get("RANK", "0") == "0":
            print(
                f"squeeze: the fit on {wanted} samples explains {explained:.0%} of what the teacher says",
                file=sys.stderr,
            )

    def batch(self, indices: Sequence[int]) -> list[Sample]:
        return [self._sample(index) for index in indices]

    def loss(self, batch: list[Sample]) -> tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]:
        contexts = self._contexts([sample.prompt for sample in batch])
        groups = few_calls([context.shape[1] for context in contexts], 1 if self.config.compile else 2)
        errors, diverging = [], []
        for group in groups:
            samples = [batch[number] for number in group]
            error, diverged = self._errors(samples, [contexts[number] for number in group], self._taught(samples))
            errors.append(error)
            diverging.append(diverged)
        tokens = sum(context.shape[1] for context in contexts) / len(contexts)
        numbers: dict[str, float | torch.Tensor] = {"context_tokens": tokens, "flux_calls": float(len(groups))}
        loss = torch.cat(errors).mean()
        if self.config.distillation.attention:
            attention = torch.cat(diverging).mean()
            numbers |= {"velocity": loss.detach(), "attention": attention.detach()}
            loss = loss + self.config.distillation.attention * attention
        return loss, numbers

    def identity(self) -> dict[str, Any]:
        elsewhere = _MAY_CHANGE | _SAID_OTHERWISE | set(LoopSettings.model_fields)
        return {
            "adapter": self.adapter.model_dump(mode="json"),
            "lora_alpha": None,
            "vae_references": False,
            "data": self.walk.identity(),
            "text_encoder": self.words.identity,
            **self.models_identity(),
            **self.config.model_dump(mode="json", exclude=elsewhere),
        }

    def _sample(self, index: int) -> Sample:
        told, side = self.walk.example(index), self.config.resolution // DOWNSCALE
        levels = self.config.distillation.steps if self.config.distillation.sigmas == "trajectory" else 1
        return Sample(
            told,
            self._prompt(told),
            self.draws.normal("noise", index, (1, self.vae.config.latent_channels, side, side)),
            self.draws.integer("level", index, levels),
        )

    def _prompt(self, told: Told) -> Prompt:
        return Prompt(told.prompt, told.pictures, self.config.system_prompt, self.config.tiles)

    @torch.no_grad()
    def _taught(self, samples: Sequence[Sample]) -> Taught:
        said = self.words.encode([sample.told.words for sample in samples])
        pooled = self._pooled([sample.told.words for sample in samples], self.config.teacher_pooled)
        heard = [
            Conditioning(each.states[None], vector, self.config.guidance)
            for each, vector in zip(said, pooled.split(1))
        ]
        latents = torch.cat([sample.noise for sample in samples]).to(self.device)
        levels = self._sigmas.to(self.device)
        for level in range(max(sample.level for sample in samples)):
            going = [number for number, sample in enumerate(samples) if sample.level > level]
            step = levels[level + 1] - levels[level]
            sigma = levels[level].expand(len(going))
            predicted = self._velocities(latents[going], sigma, [heard[number] for number in going])
            latents[going] = latents[going] + step * predicted
        sigma = levels[[sample.level for sample in samples]]
        with self._hearing() as attention:
            return Taught(latents, sigma, self._velocities(latents, sigma, heard), attention)

    def _errors(
        self, samples: Sequence[Sample], contexts: Sequence[torch.Tensor], taught: Taught
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[samples] each: mean square of the difference in velocity, and of attention the divergence or nothing."""
        pooled = self._pooled([sample.prompt.text for sample in samples], self.config.pooled)
        heard = [
            Conditioning(context, vector, self.config.guidance)
            for context, vector in zip(contexts, pooled.split(1))
        ]
        with self._hearing() as attention:
            predicted = self._velocities(taught.latents, taught.sigma, heard)
        error = (predicted - taught.velocity).square().flatten(1).mean(1)
        return error, divergence(attention, taught.attention) if attention else error.new_zeros(0)

    def _velocities(
        self, latents: torch.Tensor, sigma: torch.Tensor, heard: Sequence[Conditioning]
    ) -> torch.Tensor:
        multiple = MULTIPLE if self.config.compile else batching.ALIGN
        return velocities(self.module.transformer, latents, sigma, heard, multiple=multiple)

    def _hearing(self) -> Any:
        if not self.config.distillation.attention:
            return nullcontext([])
        return heard_by_pictures(self.module.transformer, self._tokens)
