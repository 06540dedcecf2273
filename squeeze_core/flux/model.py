"""FLUX.1 as diffusers has it, with reference tokens: latents <-> tokens, positions, one velocity, Euler steps.

The same arithmetic as ComfyUI's FLUX, so that both hosts give the same latents for the same weights, noise and
sigmas, in float32. With weights of 16 bits diffusers rounds time and guidance to their type before it embeds them
(sigma 0.9984 becomes 1), which ComfyUI does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from .attention import processed, ruled
from .conditioning import Conditioning
from .spec import DiTSpec
from .tokens import PATCH, positions, to_latents, to_tokens

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel


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
    words = heard.context.shape[1]
    attention = ruled(heard.rules, words, sizes[0], sizes[1:], torch.empty(0, device=here, dtype=dtype))
    with processed(transformer) if attention else nullcontext():
        predicted = transformer(
            hidden_states=tokens.to(dtype),
            encoder_hidden_states=heard.context.to(here, dtype).expand(batch, -1, -1),
            pooled_projections=heard.pooled.to(here, dtype).expand(batch, -1),
            timestep=sigma.to(here, torch.float32).expand(batch),
            img_ids=positions(sizes[0], sizes[1:], heard.placement).to(here),
            txt_ids=torch.zeros(words, 3, device=here),
            guidance=guidance_of(transformer, [heard.guidance] * batch, here),
            joint_attention_kwargs={**attention, **_masked(heard.present, tokens)} or None,
            return_dict=False,
        )[0]
    rows, columns = sizes[0]
    return to_latents(predicted[:, : rows * columns], rows).float()


def _masked(present: torch.Tensor | None, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What attention takes: context tokens first, then pictures, which all are seen."""
    if present is None:
        return {}
    pictures = present.new_ones(tokens.shape[:2])
    return {"attention_mask": torch.cat([present, pictures], 1)[:, None, None].to(tokens.device)}


def guidance_of(
    transformer: FluxTransformer2DModel, values: Sequence[float], device: torch.device
) -> torch.Tensor | None:
    """[samples] for a FLUX that takes guidance, None for one that does not."""
    if not transformer.config.guidance_embeds:
        return None
    return torch.tensor(values, device=device, dtype=torch.float32)


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
