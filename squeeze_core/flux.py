"""FLUX.1 as diffusers has it, with reference tokens: latents <-> tokens, positions, one velocity, Euler steps.

The same arithmetic as ComfyUI's FLUX, so that both hosts give the same latents for the same weights, noise and
sigmas, in float32. With weights of 16 bits diffusers rounds time and guidance to their type before it embeds them
(sigma 0.9984 becomes 1), which ComfyUI does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange

from .adapter import DiTSpec
from .references import Placement, offsets

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

PATCH = 2  # latents a side of a token
DOWNSCALE = 8  # pixels a side of a latent
POOLED_WIDTH = 768


@dataclass(frozen=True)
class Conditioning:
    """What one prediction hears.

    context: [1 or batch, tokens, width], at least one token. pooled: [1 or batch, 768]. guidance: for FLUX's
        guidance embedding.
    references: scaled latents [1, channels, h, w], h and w even; tokens that are not there cost nothing.
    present: [batch, tokens] bool, which context tokens attention sees, where contexts of several lengths were
        padded into one batch; None for all.
    """

    context: torch.Tensor
    pooled: torch.Tensor
    guidance: float
    references: tuple[torch.Tensor, ...] = ()
    placement: Placement = "auto"
    present: torch.Tensor | None = None


def to_tokens(latents: torch.Tensor) -> torch.Tensor:
    """[batch, channels, h, w] -> [batch, h/2 * w/2, channels * 4]."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)


def to_latents(tokens: torch.Tensor, rows: int) -> torch.Tensor:
    """[batch, rows * columns, channels * 4] -> [batch, channels, rows * 2, columns * 2]."""
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=PATCH, q=PATCH)


def positions(target: tuple[int, int], references: Sequence[tuple[int, int]], placement: Placement) -> torch.Tensor:
    """[tokens, 3] float32: (index, row, column) of every target token, then of every reference's.

    target, references: (rows, columns) of tokens.
    """
    grids = [_grid(target, (0, 0, 0))]
    grids += [_grid(size, offset) for size, offset in zip(references, offsets(references, target, placement))]
    return torch.cat(grids)


def _grid(size: tuple[int, int], offset: tuple[int, int, int]) -> torch.Tensor:
    index, row, column = offset
    rows = torch.arange(row, row + size[0], dtype=torch.float32)
    columns = torch.arange(column, column + size[1], dtype=torch.float32)
    return torch.cartesian_prod(torch.tensor([float(index)]), rows, columns)


def velocity(
    transformer: FluxTransformer2DModel, latents: torch.Tensor, sigma: torch.Tensor, heard: Conditioning
) -> torch.Tensor:
    """What FLUX predicts, noise - picture: float32, of the latents' shape.

    latents: [batch, channels, h, w], scaled, h and w even. sigma: [] or [batch]; the same for reference
    tokens, which join the sequence after the picture's own.
    """
    dtype, batch = transformer.dtype, latents.shape[0]
    images = [latents, *(reference.expand(batch, -1, -1, -1) for reference in heard.references)]
    sizes = [(image.shape[-2] // PATCH, image.shape[-1] // PATCH) for image in images]
    tokens = torch.cat([to_tokens(image) for image in images], dim=1)
    here = latents.device
    predicted = transformer(
        hidden_states=tokens.to(dtype),
        encoder_hidden_states=heard.context.to(here, dtype).expand(batch, -1, -1),
        pooled_projections=heard.pooled.to(here, dtype).expand(batch, -1),
        timestep=sigma.to(here, torch.float32).expand(batch),
        img_ids=positions(sizes[0], sizes[1:], heard.placement).to(here),
        txt_ids=torch.zeros(heard.context.shape[1], 3, device=here),
        guidance=_guidance(transformer, heard.guidance, batch, here),
        joint_attention_kwargs=_masked(heard.present, tokens),
        return_dict=False,
    )[0]
    rows, columns = sizes[0]
    return to_latents(predicted[:, : rows * columns], rows).float()


def _masked(present: torch.Tensor | None, tokens: torch.Tensor) -> dict[str, torch.Tensor] | None:
    """What attention takes: context tokens first, then pictures, which all are seen."""
    if present is None:
        return None
    pictures = present.new_ones(tokens.shape[:2])
    return {"attention_mask": torch.cat([present, pictures], 1)[:, None, None].to(tokens.device)}


def _guidance(
    transformer: FluxTransformer2DModel, value: float, batch: int, device: torch.device
) -> torch.Tensor | None:
    if not transformer.config.guidance_embeds:
        return None
    return torch.full((batch,), value, device=device, dtype=torch.float32)


def euler(
    predict: Callable[[int, torch.Tensor], torch.Tensor],
    noise: torch.Tensor,
    sigmas: torch.Tensor,
    step_done: Callable[[int], None] = lambda step: None,
) -> torch.Tensor:
    """Follow the velocity from noise to picture: x += (sigma_next - sigma) * v.

    predict: (step, latents) -> velocity. noise: [batch, channels, h, w]. sigmas: [steps + 1], falling.
    """
    latents = noise * sigmas[0]
    for step in range(len(sigmas) - 1):
        latents = latents + predict(step, latents) * (sigmas[step + 1] - sigmas[step])
        step_done(step + 1)
    return latents


def seeded_noise(seed: int, batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    """[batch, channels, height / 8, width / 8] float32 on the CPU: ComfyUI's own noise of that seed."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn((batch, channels, height // DOWNSCALE, width // DOWNSCALE), generator=generator)


def spec_of(transformer: FluxTransformer2DModel) -> DiTSpec:
    """The shape of a FLUX, to compare with what an adapter was trained on."""
    config = transformer.config
    return DiTSpec(
        width=config.num_attention_heads * config.attention_head_dim,
        double_blocks=config.num_layers,
        single_blocks=config.num_single_layers,
        context=config.joint_attention_dim,
        channels=config.in_channels,
        guidance=config.guidance_embeds,
    )
