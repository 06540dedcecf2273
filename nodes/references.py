"""Reference pictures -> VAE latents, exactly as shown."""

from __future__ import annotations

from typing import get_args

import torch
from comfy_api.latest import io

from ..squeeze_core import references as core
from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.finite import VAE_ADVICE, check_finite
from ..squeeze_core.gate import MAX_TAU
from ..squeeze_core.images import on_white
from ..squeeze_core.windows import ALWAYS, check_window
from .attention import region_of
from .sockets import CATEGORY, DLA, ReferenceLatents, boxes_input

CHANNELS = {4: (16, 128), 5: (16,)}  # FLUX.1's and FLUX.2's; Qwen's and Wan's, by dimensions


class ReferenceTokens(io.ComfyNode):
    """One or more pictures, chainable, each with its own mask and size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeReferenceTokens",
            display_name="Reference Tokens",
            category=CATEGORY,
            description="Encode reference pictures with the VAE for fine identity. Never cropped or "
            "zoomed; the image "
            "output shows exactly what was encoded.",
            search_aliases=[
                "ReferenceLatent",
                "UNO reference",
                "Kontext reference",
                "VAE reference",
                "subject image",
            ],
            inputs=[
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE of the diffusion model: FLUX.1's (ae.safetensors), FLUX.2's, Qwen-Image's.",
                ),
                io.Image.Input("image", tooltip="The subject. A batch counts as several pictures."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White marks the subject; the rest becomes neutral grey. As large as the "
                    "picture. (The mask "
                    "of Load Image is the other way round: invert it.)",
                ),
                ReferenceLatents.Input(
                    "references",
                    optional=True,
                    tooltip="Earlier references, to which these are added in order.",
                ),
                io.Int.Input(
                    "long_side",
                    default=0,
                    min=0,
                    max=2048,
                    step=16,
                    tooltip="Longer side in pixels as encoded. 0: 512 for a lone reference, 320 each for several. "
                    "Larger keeps more detail and costs tokens.",
                ),
                io.Combo.Input(
                    "placement",
                    options=list(get_args(core.Placement)),
                    default="auto",
                    tooltip="Where the tokens stand. auto: what the adapter or the model was trained "
                    "with. uxo: UNO, USO, "
                    "DreamO. offset: Kontext. index: models trained with one index a picture.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(get_args(core.Fit)),
                    default="resize",
                    optional=True,
                    advanced=True,
                    tooltip="Sides must be multiples of 16 px. resize: by resizing, at most 8 px off "
                    "the aspect. pad: by "
                    "neutral grey around the picture.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="Multiplies the odds of looking at these pictures. 1: as trained. 2: as if given "
                    "twice. 0: not heard.",
                ),
                io.Float.Input(
                    "start",
                    default=ALWAYS[0],
                    min=0.0,
                    max=MAX_TAU,
                    step=0.01,
                    round=0.0001,
                    optional=True,
                    advanced=True,
                    tooltip="Heard below this sigma (1 is pure noise; above 1: from the first step), within the "
                    "gate's stages.",
                ),
                io.Float.Input(
                    "end",
                    default=ALWAYS[1],
                    min=0.0,
                    max=MAX_TAU,
                    step=0.01,
                    round=0.0001,
                    optional=True,
                    advanced=True,
                    tooltip="Heard down to this sigma. 0: to the last step. Below start.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    advanced=True,
                    tooltip="Where in the new picture these act: white. Of any size, it spans the picture; grey is "
                    "half seen. Tokens outside do not see them.",
                ),
                boxes_input(
                    "region_boxes",
                    advanced=True,
                    tooltip="The same as boxes in pixels of the new picture, from Create Bounding Boxes on a "
                    "canvas of its size.",
                ),
                DLA.Input(
                    "for_adapter",
                    optional=True,
                    advanced=True,
                    tooltip="The dla of Load Squeeze Adapter. A long_side of 0 is then the size that the adapter "
                    "was trained at.",
                ),
            ],
            outputs=[
                ReferenceLatents.Output(display_name="references", tooltip="For the Timestep Gate, or to chain."),
                io.Image.Output(
                    display_name="image",
                    is_output_list=True,
                    tooltip="All references as encoded, in order: one batch if they are of one size, "
                    "else one by one, so that what follows runs once for each. Made to look at: Encode takes the "
                    "original pictures.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, start: float | None = None, end: float | None = None) -> bool | str:
        try:
            if start is not None and end is not None:
                check_window(start, end)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        vae,
        image,
        long_side: int,
        placement: core.Placement,
        mask=None,
        references=None,
        fit: core.Fit = "resize",
        strength: float = 1.0,
        start: float = ALWAYS[0],
        end: float = ALWAYS[1],
        region=None,
        region_boxes=None,
        for_adapter=None,
    ) -> io.NodeOutput:
        if for_adapter is not None:
            long_side = long_side or for_adapter.config.long_side
        how = (strength, start, end, region_of(region, region_boxes))
        own = [
            core.ReferencePicture(on_white(pixels), area, long_side, fit, *how)
            for pixels, area in zip(image, _masks(mask, len(image)))
        ]
        if placement == "auto" and references is not None:
            placement = references.placement
        elif references is not None and references.placement not in ("auto", placement):
            raise SqueezeError(
                f'The chained references are placed "{references.placement}" and these "{placement}"; all must be '
                "placed alike. Set one of them to auto."
            )
        encoded = core.encode(core.chained(references, own), lambda pixels: _latent(vae, pixels), placement)
        return io.NodeOutput(encoded, _batched(encoded.encoded))


def _latent(vae, pixels: torch.Tensor) -> torch.Tensor:
    """[1, H, W, 3] -> [1, 16 or 128, h, w] or [1, 16, 1, h, w].

    Raises `SqueezeError` for the VAE of a model that reads no such references, and for NaN.
    """
    latent = vae.encode(pixels)
    if latent.shape[1] not in CHANNELS.get(latent.ndim, ()):
        raise SqueezeError(
            f"This VAE makes latents of {list(latent.shape)}; references are of 16 channels (FLUX.1, Qwen-Image, "
            "Krea 2) or of 128 (FLUX.2, Mage). Load the VAE of the diffusion model: ae.safetensors for FLUX.1."
        )
    return check_finite(latent, "The VAE gave latents of a reference", VAE_ADVICE)


def _masks(mask: torch.Tensor | None, count: int) -> list[torch.Tensor | None]:
    """One mask a picture; a lone mask serves all of them."""
    if mask is None:
        return [None] * count
    if mask.ndim == 2:
        mask = mask[None]
    if len(mask) not in (1, count):
        raise SqueezeError(
            f"There are {count} pictures and {len(mask)} masks. Give one mask for each picture, or one for all."
        )
    return [mask[index if len(mask) > 1 else 0] for index in range(count)]


def _batched(images: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    if len({image.shape for image in images}) == 1:
        return [torch.cat(images)]
    return list(images)
