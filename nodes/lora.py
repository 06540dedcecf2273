"""An adapter's LoRA in ComfyUI's model, by ComfyUI's own loader."""

from __future__ import annotations

import comfy.lora
import comfy.model_base

from ..squeeze_core.adapter import Adapter
from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.flux.spec import DiTSpec


def apply_lora(model, adapter: Adapter, strength: float):
    """A clone of MODEL with the LoRA patched in.

    Raises `SqueezeError` when the model is no FLUX.1 of the shape trained on, when it takes LoRAs only as files
    (Nunchaku), or when a key finds no place: a LoRA applied by half gives wrong pictures silently.
    """
    adapter.config.check_attention()
    adapter.config.check_dit(dit_of(model))
    patched = model.clone()
    if not adapter.lora or strength == 0:
        return patched
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    patches = comfy.lora.load_lora(dict(adapter.lora), key_map)
    placed = patched.add_patches(patches, strength)
    if len(placed) != len(adapter.lora) // 2:
        raise SqueezeError(
            f"Only {len(placed)} of {len(adapter.lora) // 2} LoRA modules found their place in this model. "
            "Load FLUX.1-dev with a loader that keeps its layout (bf16, fp8, GGUF)."
        )
    return patched


def dit_of(model) -> DiTSpec:
    """The shape of a MODEL's diffusion transformer. Raises `SqueezeError` unless it is a FLUX.1."""
    network = type(model.model.diffusion_model)
    if "nunchaku" in f"{network.__module__}.{network.__name__}".lower() or network.__name__ == "ComfyFluxWrapper":
        raise SqueezeError(
            "This is Nunchaku's FLUX: its wrapper takes LoRAs only as files and places references always as "
            "offset, so an adapter cannot be applied. Load FLUX.1-dev with another loader; the Timestep Gate "
            "alone works with Nunchaku."
        )
    config = model.model.model_config.unet_config
    if not isinstance(model.model, comfy.model_base.Flux) or config.get("image_model") != "flux":
        raise SqueezeError(
            f"The adapter is for FLUX.1 and the model given is {type(model.model).__name__}. Load FLUX.1-dev."
        )
    return DiTSpec(
        width=config["hidden_size"],
        double_blocks=config["depth"],
        single_blocks=config["depth_single_blocks"],
        context=config["context_in_dim"],
        channels=config["in_channels"] * config["patch_size"] ** 2,
        guidance=config["guidance_embed"],
    )
