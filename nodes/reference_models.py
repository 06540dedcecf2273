"""What core's models ask of reference latents: their dimensions and channels, and a method that they honour.

Core refuses none of it. A four-dimensional latent of a model with five gives another picture, and Krea 2 without a
method gives one without references.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from comfy import model_base

from ..squeeze_core.errors import SqueezeError

MODELS = (
    model_base.Flux,
    model_base.QwenImage,  # and Mage
    model_base.JoyImage,
    model_base.Omnigen2,  # and Boogu
    model_base.Krea2,
    model_base.Lumina2,  # Z-Image omni
)
KREA_2 = "index_timestep_zero"


def check_latents(model: Any, latents: Sequence[torch.Tensor]) -> None:
    """model: a `BaseModel`. Raises `SqueezeError` for latents that this model would misread, silently or not."""
    if not isinstance(model, MODELS):
        return
    spatial, channels = model.latent_format.latent_dimensions, model.latent_format.latent_channels
    for latent in latents:
        frames = latent.shape[2] if latent.ndim == 5 else 1
        if latent.ndim != spatial + 2 or frames != 1 or latent.shape[1] != channels:
            wanted = f"[1, {channels}, 1, h, w]" if spatial == 3 else f"[1, {channels}, h, w]"
            raise SqueezeError(
                f"{type(model).__name__} takes reference latents of {wanted} and misreads these, of "
                f"{list(latent.shape)}. Encode the references with the VAE that this model decodes with."
            )


def method_for(model: Any, method: str | None) -> str | None:
    """The method of reference latents to set on this model; None leaves what is there."""
    if method is None and isinstance(model, model_base.Krea2):
        return KREA_2 if getattr(model.diffusion_model, "default_ref_method", None) is None else None
    return None


def taken_otherwise(model: Any, method: str | None) -> str | None:
    """A sentence where this model takes the method for another one."""
    qwen = isinstance(model, model_base.QwenImage) and not isinstance(model, model_base.MageFlow)
    if qwen and method == "uxo":
        return "Qwen-Image takes placement uxo for offset. Set it to auto, or to index."
    return None


def prepare(model: Any, cond: dict[str, Any], said: set[str]) -> None:
    """The same right before a call of the model, for a gate without MODEL.

    cond: the keywords of the call; its latents went through `process_latent_in`, in which those of four
    dimensions become sixteen frames. said: what the log has heard in this sampling.
    """
    latents = cond.get("ref_latents")
    if not isinstance(latents, list) or not latents:
        return
    check_processed(model, latents)
    given = cond.get("ref_latents_method")
    method, sentence = method_for(model, given), taken_otherwise(model, given)
    if method is not None:
        cond["ref_latents_method"] = method
        sentence = f"Krea 2 ignores references without a method; the gate sets {method}."
    if sentence is not None and sentence not in said:
        said.add(sentence)
        logging.warning("Squeeze: %s", sentence)


def check_processed(model: Any, latents: Sequence[torch.Tensor]) -> None:
    """`check_latents` of latents that the model has scaled."""
    if isinstance(model, MODELS) and model.latent_format.latent_dimensions == 3:
        latents = [latent[:, :, 0] if latent.ndim == 5 and latent.shape[2] != 1 else latent for latent in latents]
    check_latents(model, latents)
