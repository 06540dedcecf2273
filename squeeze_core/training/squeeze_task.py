"""The method's own training (section 3.5): rectified flow on FLUX, conditioned by the MLLM, or by MLLM and VAE.

Trained are DLA, projector and a LoRA on FLUX's attention. Stage 1 shows references to the MLLM only; stage 2
also as VAE tokens. Random drops teach each branch to work alone and the model to work with neither, which the
gate's stages and classifier-free guidance ask for at inference.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..adapter import AdapterConfig
from ..data.buckets import fitted, nearest
from ..data.examples import Example, Walk
from ..dla import Aggregator
from ..draws import Draws
from ..flux import batching
from ..flux.batching import few_calls
from ..flux.clip import PooledText
from ..flux.conditioning import Conditioning, null_context
from ..flux.model import velocity
from ..flux.tokens import DOWNSCALE, PATCH
from ..flux.vae import scale_latents
from ..images import to_tensor
from ..lap import TOKEN_CHUNK
from ..mllm.backbone import Backbone, Prompt
from ..mllm.states import LayerStates
from ..references import ReferencePicture, fit, long_sides
from ..sigmas import flux_mu, shifted
from .checkpointing import Blocks, Memory
from .compiling import MULTIPLE, compile_blocks, no_compiler
from .config import TrainConfig, merged
from .latents import LatentCache, Picture, weights_hash
from .settings import LoopSettings
from .task import Task

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from PIL.Image import Image

UNO_TIMES = 1000
# Of TrainConfig, besides the loop's: what may change when a run goes on,
_MAY_CHANGE = {"init", "latent_cache", "gradient_checkpointing", "calls", "compile", "sampling"}
# and what the adapter's config, the data sets' names or the weights' hashes say.
_SAID_OTHERWISE = {"models", "data", "dla", "lora", "pooled", "gate", "placement", "system_prompt", "tiles"}
_SAID_OTHERWISE |= {"inference_guidance"}


class Trained(nn.Module):
    """What gradients reach: FLUX with its LoRA, and the aggregator. Names in checkpoints begin with these."""

    def __init__(self, transformer: FluxTransformer2DModel, aggregator: Aggregator) -> None:
        super().__init__()
        self.transformer = transformer
        self.aggregator = aggregator


@dataclass(frozen=True)
class Sample:
    """One sample with every draw made.

    prompt: None when the whole MLLM context is dropped. noise: [1, channels, H/8, W/8]. sigma: 1 is noise.
    references: those that reach FLUX as VAE tokens.
    """

    prompt: Prompt | None
    target: Picture
    references: tuple[Picture, ...]
    noise: torch.Tensor
    sigma: float


class SqueezeTask(Task):
    """See `build.squeeze_task`, which loads the models that are taken here."""

    module: Trained

    def __init__(
        self,
        config: TrainConfig,
        module: Trained,
        vae: AutoencoderKL,
        mllm: Backbone,
        walk: Walk,
        adapter: AdapterConfig,
        fixed: Sequence[tuple[str, tuple[Image, ...]]],
        clip: PooledText | None = None,
    ) -> None:
        if clip is not None:
            clip.check_width(module.transformer.config.pooled_projection_dim)
        self.config, self.module, self.vae, self.mllm, self.walk = config, module, vae, mllm, walk
        self.adapter, self.clip = adapter, clip
        self.fixed = tuple(fixed)
        self.draws = Draws(config.seed)
        self.latents = LatentCache(vae, config.latent_cache)
        # Both ends tell one FLUX from another; hashing all 24 GB would take minutes.
        ends = {"first": module.transformer.x_embedder.weight, "last": module.transformer.proj_out.weight}
        self._flux_hash = weights_hash(ends)
        self.blocks = Blocks.of(module.transformer, config.gradient_checkpointing)
        batching.prepare(module.transformer)

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.vae.to(device)
        self.mllm.encoder.to(device)
        if self.clip is not None:
            self.clip.model.to(device)
        self.blocks.memory = Memory.of(device)
        if self.config.compile:
            if why_not := no_compiler(device):
                print(why_not, file=sys.stderr)
            else:
                compile_blocks(self.module.transformer)

    def stepped(self) -> None:
        self.blocks.settle()

    def shard_units(self) -> list[nn.Module]:
        transformer = self.module.transformer
        return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def batch(self, indices: Sequence[int]) -> list[Sample]:
        samples = [self._sample(index) for index in indices]
        return [_pinned(sample) for sample in samples] if self.device.type == "cuda" else samples

    def loss(self, batch: list[Sample]) -> tuple[torch.Tensor, dict[str, float]]:
        contexts = self._contexts([sample.prompt for sample in batch])
        groups = self._calls(batch, contexts)
        errors = [
            self._errors([batch[number] for number in group], [contexts[number] for number in group])
            for group in groups
        ]
        tokens = sum(context.shape[1] for context in contexts) / len(contexts)
        return torch.cat(errors).mean(), {"context_tokens": tokens, "flux_calls": float(len(groups))}

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
            groups.setdefault(alike, []).append(number)
        if self.config.calls != "few":
            return list(groups.values())
        most = 1 if self.config.compile else 2
        return [
            [group[place] for place in call]
            for group in groups.values()
            for call in few_calls([_tokens(batch[number], contexts[number]) for number in group], most)
        ]

    def sample(self, step: int) -> dict[str, Image]:
        from ..gate import Gate
        from ..generation import GenerationSettings
        from ..pipeline import SqueezePipeline

        config = self.config
        # A model of stage 1 has never met reference tokens.
        gate = self.adapter.gate if config.vae_references else Gate(0, 0)
        settings = GenerationSettings(
            height=config.resolution,
            width=config.resolution,
            steps=config.sampling.steps,
            gate=gate,
            true_cfg=config.sampling.true_cfg,
            long_side=config.reference_long_side,
        )
        module = self.module
        pipeline = SqueezePipeline(
            module.transformer,
            self.vae,
            self.mllm,
            module.aggregator,
            self.adapter,
            clip=self.clip,
            device=self.device,
        )
        return {
            f"{number}": _side_by_side([*images, *pipeline.generate(prompt, images, settings).images])
            for number, (prompt, images) in enumerate(self.fixed)
        }

    def identity(self) -> dict[str, Any]:
        elsewhere = _MAY_CHANGE | _SAID_OTHERWISE | set(LoopSettings.model_fields)
        return {
            "adapter": self.adapter.model_dump(mode="json"),
            "lora_alpha": self.config.lora.alpha,
            "data": self.walk.identity(),
            "vae": self.latents.vae_hash,
            "flux": self._flux_hash,
            **({} if self.clip is None else {"clip": weights_hash(self.clip.model.state_dict())}),
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
        images = () if draws.chance("drop/pictures", index, config.drops.pictures) else example.references
        prompt = Prompt(example.prompt, images, config.system_prompt, config.tiles)
        heard = config.vae_references and not draws.chance("drop/references", index, config.drops.references)
        height, width = (side // DOWNSCALE for side in size)
        return Sample(
            prompt=None if draws.chance("drop/context", index, config.drops.context) else prompt,
            target=target,
            references=self._references(example) if heard else (),
            noise=draws.normal("noise", index, (1, self.vae.config.latent_channels, height, width)),
            sigma=self._sigma(index, height * width // PATCH**2),
        )

    def _references(self, example: Example) -> tuple[Picture, ...]:
        pictures = [
            ReferencePicture(to_tensor(image), long_side=self.config.reference_long_side)
            for image in example.references
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

    def _errors(self, samples: Sequence[Sample], contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """[samples]: mean square of v - (noise - x) at x_t = (1 - t) x + t noise, samples of equal sizes."""
        picture = torch.cat([self._scaled(sample.target) for sample in samples])
        noise = torch.cat([sample.noise.to(self.device, non_blocking=True) for sample in samples])
        sigma = torch.tensor([sample.sigma for sample in samples], device=self.device, dtype=torch.float32)
        at = sigma[:, None, None, None]
        mixed = (1 - at) * picture + at * noise
        if self.config.calls == "few":
            predicted = batching.velocities(
                self.module.transformer,
                mixed,
                sigma,
                self._each(samples, contexts),
                multiple=MULTIPLE if self.config.compile else batching.ALIGN,
            )
            return (predicted - (noise - picture)).square().flatten(1).mean(1)
        context, present = _padded(contexts)
        heard = Conditioning(
            context=context,
            pooled=self._pooled([sample.prompt for sample in samples]).to(context),
            guidance=self.config.guidance,
            references=tuple(
                torch.cat([self._scaled(picture) for picture in pictures])
                for pictures in zip(*(sample.references for sample in samples))
            ),
            placement=self.config.placement,
            present=present,
        )
        predicted = velocity(self.module.transformer, mixed, sigma, heard)
        return (predicted - (noise - picture)).square().flatten(1).mean(1)

    def _each(self, samples: Sequence[Sample], contexts: Sequence[torch.Tensor]) -> list[Conditioning]:
        """What each sample is conditioned on, of batch 1."""
        pooled = self._pooled([sample.prompt for sample in samples]).to(contexts[0])
        return [
            Conditioning(
                context=context,
                pooled=vector,
                guidance=self.config.guidance,
                references=tuple(self._scaled(picture) for picture in sample.references),
                placement=self.config.placement,
            )
            for sample, context, vector in zip(samples, contexts, pooled.split(1))
        ]

    def _pooled(self, prompts: Sequence[Prompt | None]) -> torch.Tensor:
        """[prompts, 768] for FLUX: zeros, or what CLIP-L gives of the prompts that are not dropped."""
        width = self.module.transformer.config.pooled_projection_dim
        vectors = torch.zeros(len(prompts), width, device=self.device)
        told = [number for number, prompt in enumerate(prompts) if prompt is not None]
        if self.clip is not None and told:
            vectors[told] = self.clip.encode([prompt.text for prompt in prompts if prompt is not None])
        return vectors

    def _scaled(self, picture: Picture) -> torch.Tensor:
        return scale_latents(self.vae, self.latents.latents(picture, self.device))

    def _contexts(self, prompts: Sequence[Prompt | None]) -> list[torch.Tensor]:
        """[1, tokens, width] for each prompt; for None one zero token, as the gate's late stage leaves.

        All prompts go through the aggregator at once, because it works token by token. Two zero tokens, one of
        text and one of a picture, go with them and count nothing: so every weight takes part in every batch,
        also when all of its contexts or pictures are dropped, which several processes need.
        """
        heard = self._states([prompt for prompt in prompts if prompt is not None])
        dtype = torch.bfloat16 if torch.is_autocast_enabled(self.device.type) else torch.float32
        dla = self.adapter.dla
        none = torch.zeros(dla.layers, 2, dla.hidden, device=self.device, dtype=dtype)
        every = torch.cat([*(each.states.to(dtype) for each in heard), none], dim=1)
        mask = torch.cat([*(each.image_mask for each in heard), torch.tensor([False, True], device=self.device)])
        pooled = torch.cat(
            [
                _aggregated(self.module.aggregator, chunk, chunk_mask)
                for chunk, chunk_mask in zip(every.split(TOKEN_CHUNK, dim=1), mask.split(TOKEN_CHUNK))
            ]
        )
        *parts, spare = pooled.split([*(each.tokens for each in heard), 2])
        nothing = spare.sum() * 0
        null = null_context(pooled.detach()[None])
        found = iter(parts)
        return [(null if prompt is None else next(found)[None]) + nothing for prompt in prompts]

    def _states(self, prompts: Sequence[Prompt]) -> list[LayerStates]:
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.mllm.encode_many(prompts, device=self.device)


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


def _aggregated(aggregator: Aggregator, states: torch.Tensor, image_mask: torch.Tensor) -> torch.Tensor:
    """[layers, tokens, hidden] -> [tokens, context]; activations are made again in the backward pass.

    At full size they are about 1 GB a tensor for a batch of 16.
    """
    run: Callable = lambda states, mask: aggregator(states, mask)[0]  # noqa: E731
    return (
        checkpoint(run, states, image_mask, use_reentrant=False)
        if torch.is_grad_enabled()
        else run(states, image_mask)
    )


def _side_by_side(images: Sequence[Image]) -> Image:
    """References, then the result, at the result's height."""
    from PIL import Image

    height = images[-1].height
    row = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in images]
    sheet = Image.new("RGB", (sum(image.width for image in row), height))
    left = 0
    for image in row:
        sheet.paste(image, (left, 0))
        left += image.width
    return sheet
