"""The method's own training (section 3.5): rectified flow on FLUX, conditioned by the MLLM, or by MLLM and VAE.

Trained are DLA, projector and a LoRA on FLUX's attention. Stage 1 shows references to the MLLM only; stage 2
also as VAE tokens. Random drops teach each branch to work alone and the model to work with neither, which the
gate's stages and classifier-free guidance ask for at inference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from ..adapter import AdapterConfig
from ..attention.rules import AttentionRules
from ..config_files import merged
from ..data.buckets import fitted, nearest
from ..data.examples import Example, Walk
from ..flux import batching
from ..flux.batching import few_calls
from ..flux.conditioning import Conditioning
from ..flux.model import velocity
from ..flux.tokens import DOWNSCALE, PATCH
from ..flux.vae import scale_latents
from ..gate import Gate
from ..images import to_tensor
from ..mllm.backbone import Prompt
from ..references import ReferencePicture, fit, long_sides
from ..sigmas import flux_mu, shifted
from .compiling import MULTIPLE
from .config import TrainConfig
from .flux_task import FluxTask, Models
from .latents import LatentCache, Picture
from .planned import Planned, planned
from .settings import LoopSettings

if TYPE_CHECKING:
    from PIL.Image import Image

UNO_TIMES = 1000
# Of TrainConfig, besides the loop's: what may change when a run goes on,
_MAY_CHANGE = {"init", "latent_cache", "gradient_checkpointing", "calls", "compile", "sampling"}
# and what the adapter's config, the data sets' names or the weights' hashes say.
_SAID_OTHERWISE = {"models", "data", "dla", "lora", "pooled", "gate", "placement", "system_prompt", "tiles"}
_SAID_OTHERWISE |= {"inference_guidance"}


@dataclass(frozen=True)
class Sample:
    """One sample with every draw made.

    prompts: whose contexts are joined, one but for plans; none when the whole MLLM context is dropped.
    noise: [1, channels, H/8, W/8]. sigma: 1 is noise. references: those that reach FLUX as VAE tokens.
    plan: who owns which prompt and reference, and where, for examples that are trained with their plan.
    """

    prompts: tuple[Prompt, ...]
    target: Picture
    references: tuple[Picture, ...]
    noise: torch.Tensor
    sigma: float
    plan: Planned | None = None

    @property
    def prompt(self) -> Prompt | None:
        """What is read first."""
        return self.prompts[0] if self.prompts else None


@dataclass(frozen=True)
class Heard:
    """What a sample's prompts became: context [1, tokens, width], and who sees whom, if that is ruled."""

    context: torch.Tensor
    rules: AttentionRules | None = None


class SqueezeTask(FluxTask):
    """See `build.squeeze_task`, which loads the models that are taken here."""

    config: TrainConfig

    def __init__(self, config: TrainConfig, models: Models, walk: Walk[Example]) -> None:
        super().__init__(config, models)
        self.walk = walk
        self.latents = LatentCache(self.vae, config.latent_cache)

    def batch(self, indices: Sequence[int]) -> list[Sample]:
        samples = [self._sample(index) for index in indices]
        return [_pinned(sample) for sample in samples] if self.device.type == "cuda" else samples

    def loss(self, batch: list[Sample]) -> tuple[torch.Tensor, dict[str, float]]:
        heard = self._heard(batch)
        groups = self._calls(batch, [each.context for each in heard])
        errors = [
            self._errors([batch[number] for number in group], [heard[number] for number in group])
            for group in groups
        ]
        tokens = sum(each.context.shape[1] for each in heard) / len(heard)
        return torch.cat(errors).mean(), {"context_tokens": tokens, "flux_calls": float(len(groups))}

    def _heard(self, batch: Sequence[Sample]) -> list[Heard]:
        """All prompts go through MLLM and aggregator together; those of a sample are joined."""
        asked: list[tuple[Prompt | None, ...]] = [sample.prompts or (None,) for sample in batch]
        parts = iter(self._contexts([prompt for prompts in asked for prompt in prompts]))
        found = []
        for sample, prompts in zip(batch, asked):
            own = [next(parts) for _ in prompts]
            tokens = [part.shape[1] for part in own] if sample.prompts else []
            rules = None if sample.plan is None else sample.plan.rules(tokens, bool(sample.references))
            found.append(Heard(torch.cat(own, dim=1), rules))
        return found

    def _calls(self, batch: Sequence[Sample], contexts: Sequence[torch.Tensor]) -> list[list[int]]:
        """Which samples share a call of FLUX."""
        groups: dict[Any, list[int]] = {}
        for number, (sample, context) in enumerate(zip(batch, contexts)):
            target, *references = (picture.pixels.shape for picture in (sample.target, *sample.references))
            alike: Any = {
                "few": target,
                "mask": (target, *references),
                "group": (context.shape, target, *references),
                "each": number,
            }[self.config.calls]
            if sample.plan is not None and sample.plan.places:
                alike = number  # its attention is its own
            groups.setdefault(alike, []).append(number)
        if self.config.calls != "few":
            return list(groups.values())
        most = 1 if self.config.compile else 2
        return [
            [group[place] for place in call]
            for group in groups.values()
            for call in few_calls([_tokens(batch[number], contexts[number]) for number in group], most)
        ]

    def inference_gate(self) -> Gate:
        return self.adapter.gate if self.config.vae_references else super().inference_gate()

    def identity(self) -> dict[str, Any]:
        elsewhere = _MAY_CHANGE | _SAID_OTHERWISE | set(LoopSettings.model_fields)
        return {
            "adapter": self.adapter.model_dump(mode="json"),
            "lora_alpha": self.config.lora.alpha,
            "data": self.walk.identity(),
            "vae": self.latents.vae_hash,
            **self.models_identity(),
            **self.config.model_dump(mode="json", exclude=elsewhere),
        }

    def completed(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Fields that an earlier version did not know had their defaults."""
        defaults = {
            name: TypeAdapter(Any).dump_python(field.get_default(), mode="json")
            for name, field in TrainConfig.model_fields.items()
            if name in self.identity() and not field.is_required()
        }
        adapter = AdapterConfig.model_validate(saved["adapter"]).model_dump(mode="json")
        return {**merged(defaults, dict(saved)), "adapter": adapter}

    def _sample(self, index: int) -> Sample:
        config, draws = self.config, self.draws
        example = self.walk.example(index)
        size = nearest(example.target.height, example.target.width, config.resolution)
        middle = config.crop == "center"
        crop = (0.5, 0.5) if middle else (draws.uniform("crop/down", index), draws.uniform("crop/right", index))
        target = self.latents.look_up(to_tensor(fitted(example.target, size, crop))[None])
        blind = draws.chance("drop/pictures", index, config.drops.pictures)
        plan = self._plan(example, pictures=not blind)
        said = ((example.prompt, () if blind else example.references),) if plan is None else plan.texts
        prompts = tuple(Prompt(text, images, config.system_prompt, config.tiles) for text, images in said)
        heard = config.vae_references and not draws.chance("drop/references", index, config.drops.references)
        height, width = (side // DOWNSCALE for side in size)
        return Sample(
            prompts=() if draws.chance("drop/context", index, config.drops.context) else prompts,
            target=target,
            references=self._references(example.references if plan is None else plan.pictures) if heard else (),
            noise=draws.normal("noise", index, (1, self.vae.config.latent_channels, height, width)),
            sigma=self._sigma(index, height * width // PATCH**2),
            plan=plan,
        )

    def _plan(self, example: Example, pictures: bool) -> Planned | None:
        config = self.config
        if not config.plans:
            return None
        return planned(
            example,
            separate_encodes=config.separate_encodes,
            layout=config.layout,
            plan_text=config.plan_text,
            pictures=pictures,
        )

    def _references(self, images: Sequence[Image]) -> tuple[Picture, ...]:
        pictures = [
            ReferencePicture(to_tensor(image), long_side=self.config.reference_long_side) for image in images
        ]
        return tuple(self.latents.look_up(fit(each, side)) for each, side in zip(pictures, long_sides(pictures)))

    def _sigma(self, index: int, tokens: int) -> float:
        """The time of a sample. UNO: one of 1,000 from 1 to 0, shifted as FLUX shifts them for so many tokens."""
        if self.config.timesteps == "logit_normal":
            return 1 / (1 + math.exp(-self.draws.gaussian("sigma", index)))
        if self.config.timesteps == "cosine":
            return math.cos(math.pi / 2 * self.draws.spread("sigma", index))
        level = 1 - self.draws.integer("sigma", index, UNO_TIMES) / (UNO_TIMES - 1)
        return float(shifted(torch.tensor(level, dtype=torch.float64), flux_mu(tokens)))

    def _errors(self, samples: Sequence[Sample], heard: Sequence[Heard]) -> torch.Tensor:
        """[samples]: mean square of v - (noise - x) at x_t = (1 - t) x + t noise, samples of equal sizes."""
        picture = torch.cat([self._scaled(sample.target) for sample in samples])
        noise = torch.cat([sample.noise.to(self.device, non_blocking=True) for sample in samples])
        sigma = torch.tensor([sample.sigma for sample in samples], device=self.device, dtype=torch.float32)
        at = sigma[:, None, None, None]
        mixed = (1 - at) * picture + at * noise
        if self.config.calls == "few" or heard[0].rules is not None:
            predicted = batching.velocities(
                self.module.transformer,
                mixed,
                sigma,
                self._each(samples, heard),
                multiple=MULTIPLE if self.config.compile else batching.ALIGN,
            )
            return (predicted - (noise - picture)).square().flatten(1).mean(1)
        context, present = _padded([each.context for each in heard])
        conditioning = Conditioning(
            context=context,
            pooled=self._pooled_of(samples).to(context),
            guidance=self.config.guidance,
            references=tuple(
                torch.cat([self._scaled(picture) for picture in pictures])
                for pictures in zip(*(sample.references for sample in samples))
            ),
            placement=self.config.placement,
            present=present,
        )
        predicted = velocity(self.module.transformer, mixed, sigma, conditioning)
        return (predicted - (noise - picture)).square().flatten(1).mean(1)

    def _each(self, samples: Sequence[Sample], heard: Sequence[Heard]) -> list[Conditioning]:
        """What each sample is conditioned on, of batch 1."""
        pooled = self._pooled_of(samples).to(heard[0].context)
        return [
            Conditioning(
                context=each.context,
                pooled=vector,
                guidance=self.config.guidance,
                references=tuple(self._scaled(picture) for picture in sample.references),
                placement=self.config.placement,
                rules=each.rules,
            )
            for sample, each, vector in zip(samples, heard, pooled.split(1))
        ]

    def _pooled_of(self, samples: Sequence[Sample]) -> torch.Tensor:
        texts = [None if sample.prompt is None else sample.prompt.text for sample in samples]
        return self._pooled(texts, self.config.pooled)

    def _scaled(self, picture: Picture) -> torch.Tensor:
        return scale_latents(self.vae, self.latents.latents(picture, self.device))


def _pinned(sample: Sample) -> Sample:
    """In memory from which a GPU copies while it computes. Called in the threads that make batches."""

    def ready(picture: Picture) -> Picture:
        return picture if picture.latents is None else replace(picture, latents=picture.latents.pin_memory())

    references = tuple(map(ready, sample.references))
    return replace(sample, target=ready(sample.target), references=references, noise=sample.noise.pin_memory())


def _tokens(sample: Sample, context: torch.Tensor) -> int:
    """Of the whole sequence that FLUX sees of a sample: context, picture, references. Pixels are [1, H, W, 3]."""
    side = DOWNSCALE * PATCH
    pictures = (picture.pixels.shape for picture in (sample.target, *sample.references))
    return context.shape[1] + sum((shape[1] // side) * (shape[2] // side) for shape in pictures)


def _padded(contexts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[1, tokens, width] each -> [all, longest, width], and [all, longest] which are no padding, if any is."""
    lengths = [context.shape[1] for context in contexts]
    longest = max(lengths)
    if min(lengths) == longest:
        return torch.cat(list(contexts)), None
    padded = torch.cat([F.pad(context, (0, 0, 0, longest - context.shape[1])) for context in contexts])
    here = padded.device
    return padded, torch.arange(longest, device=here)[None] < torch.tensor(lengths, device=here)[:, None]
