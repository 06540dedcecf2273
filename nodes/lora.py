"""An adapter's LoRA in a MODEL of ComfyUI."""

from __future__ import annotations

import comfy.ldm.flux.model
import comfy.lora
import comfy.lora_convert

from ..squeeze_core.adapter import Adapter, DiTSpec
from ..squeeze_core.errors import SqueezeError


def apply_lora(model, adapter: Adapter, strength: float):
    """A clone of the patcher `model` with the adapter's LoRA; all of it or nothing.

    Raises `SqueezeError` when the model is not of the shape that the adapter was trained on, or takes no
    LoRA this way.
    """
    adapter.config.check_dit(dit_spec(model))
    patched = model.clone()
    if not adapter.lora or strength == 0:
        return patched
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(adapter.lora)), names)
    taken = set(patched.add_patches(patches, strength))
    expected = len(adapter.lora) // 2
    if len(taken) != len(patches) or len(patches) != expected:
        raise SqueezeError(
            f"Only {len(taken)} of the adapter's {expected} LoRA weights found their layer in this model. "
            "Load FLUX.1-dev with ComfyUI's own loader or a GGUF loader."
        )
    return patched


def dit_spec(model) -> DiTSpec:
    """The shape of the FLUX in a MODEL. Raises `SqueezeError` when it is another model, or Nunchaku's."""
    inner = model.model.diffusion_model
    if "nunchaku" in type(inner).__module__.lower() or type(inner).__name__ == "ComfyFluxWrapper":
        raise SqueezeError(
            "Nunchaku's FLUX takes LoRAs as files only and places all references as Kontext does, so an "
            "adapter cannot work on it. Load FLUX.1-dev as bf16, fp8 or GGUF."
        )
    if not isinstance(inner, comfy.ldm.flux.model.Flux):
        raise SqueezeError(
            f"The adapter is for FLUX.1 and the model given is {type(model.model).__name__}. Load FLUX.1-dev."
        )
    shape = inner.params
    return DiTSpec(
        width=shape.hidden_size,
        double_blocks=shape.depth,
        single_blocks=shape.depth_single_blocks,
        context=shape.context_in_dim,
        name=type(model.model).__name__,
    )
