"""What every stage's task is made of: FLUX, the frozen models around it, and how prompts become its context."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..adapter import AdapterConfig
from ..dla import Aggregator
from ..draws import Draws
from ..flux import batching
from ..flux.clip import PooledText
from ..flux.conditioning import null_context
from ..gate import Gate
from ..lap import TOKEN_CHUNK
from ..mllm.backbone import Backbone, Prompt
from ..mllm.states import LayerStates
from .checkpointing import Blocks, Memory
from .compiling import compile_blocks, no_compiler
from .config import Pooled, StageConfig
from .latents import weights_hash
from .task import Task

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from PIL.Image import Image


class Trained(nn.Module):
    """What gradients reach: FLUX with its LoRA, and the aggregator. Names in checkpoints begin with these."""

    def __init__(self, transformer: FluxTransformer2DModel, aggregator: Aggregator) -> None:
        super().__init__()
        self.transformer = transformer
        self.aggregator = aggregator


@dataclass(frozen=True)
class Models:
    """module: what is trained. vae, mllm, clip: frozen. adapter: what inference will have to know. fixed: prompts
    and references of which pictures are made now and then."""

    module: Trained
    vae: AutoencoderKL
    mllm: Backbone
    adapter: AdapterConfig
    fixed: tuple[tuple[str, tuple[Image, ...]], ...] = ()
    clip: PooledText | None = None


class FluxTask(Task):
    """A stage: what is common to all of them. Raises `SqueezeError` for a CLIP of another width than FLUX takes."""

    module: Trained
    config: StageConfig

    def __init__(self, config: StageConfig, models: Models) -> None:
        self.module, self.vae, self.mllm, self.clip = models.module, models.vae, models.mllm, models.clip
        self.config, self.adapter, self.fixed = config, models.adapter, models.fixed
        transformer = self.module.transformer
        if self.clip is not None:
            self.clip.check_width(transformer.config.pooled_projection_dim)
        self.draws = Draws(config.seed)
        # Both ends tell one FLUX from another; hashing all 24 GB would take minutes.
        self._flux_hash = weights_hash(
            {"first": transformer.x_embedder.weight, "last": transformer.proj_out.weight}
        )
        self.blocks = Blocks.of(transformer, config.gradient_checkpointing)
        batching.prepare(transformer)

    def models_identity(self) -> dict[str, Any]:
        """What tells the frozen models; the MLLM is told by the adapter."""
        clip = {} if self.clip is None else {"clip": weights_hash(self.clip.model.state_dict())}
        return {"flux": self._flux_hash, **clip}

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

    def inference_gate(self) -> Gate:
        """Of pictures made now and then. A model that has never met reference tokens hears the MLLM alone."""
        return Gate(0, 0)

    def sample(self, step: int) -> dict[str, Image]:
        from ..generation import GenerationSettings
        from ..pipeline import SqueezePipeline

        config, adapter = self.config, self.adapter
        settings = GenerationSettings(
            height=config.resolution,
            width=config.resolution,
            steps=config.sampling.steps,
            gate=self.inference_gate(),
            true_cfg=config.sampling.true_cfg,
            long_side=adapter.long_side,
        )
        module, device = self.module, self.device
        clip = self.clip if adapter.pooled == "clip_l" else None
        pipeline = SqueezePipeline(
            module.transformer, self.vae, self.mllm, module.aggregator, adapter, clip=clip, device=device
        )
        return {
            f"{number}": _side_by_side([*images, *pipeline.generate(prompt, images, settings).images])
            for number, (prompt, images) in enumerate(self.fixed)
        }

    def _pooled(self, texts: Sequence[str | None], kind: Pooled) -> torch.Tensor:
        """[texts, 768] for FLUX: zeros, or what CLIP-L gives of the texts that are not dropped."""
        width = self.module.transformer.config.pooled_projection_dim
        vectors = torch.zeros(len(texts), width, device=self.device)
        told = [number for number, text in enumerate(texts) if text is not None]
        if kind == "clip_l" and told:
            assert self.clip is not None
            vectors[told] = self.clip.encode([text for text in texts if text is not None])
        return vectors

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
