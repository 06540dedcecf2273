"""What headless generation takes and gives, besides the prompt and the pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from PIL import Image

from .dla import LayerWeights
from .errors import SqueezeError
from .flux.step_cache import check_threshold
from .gate import Gate, Stage
from .layers import LayerSelection
from .references import MULTIPLE, Fit, Placement, References
from .sigmas import Curve
from .sigmas import sigmas as noise_levels

LARGEST_SEED = 2**64 - 1  # what torch's generators take


@dataclass(frozen=True)
class GenerationSettings:
    """Everything about a picture besides the prompt and the references.

    height, width: pixels, multiples of 16. batch: pictures of one seed. None in gate, guidance, system_prompt
        or tiles, and "auto" in placement, mean what the adapter was trained with.
    guidance: FLUX.1-dev's guidance embedding, one pass a step.
    true_cfg: true classifier-free guidance, "CFG" in this project's tables. Unless it is 1, a second prediction
        from the null context (one zero token, zero pooled vector, no references) is driven away from: twice the
        time. That pass has the adapter's guidance, whatever `guidance` says.
    long_side, fit: of references as encoded, see `ReferencePicture`.
    text_layers, image_layers: layers of the MLLM left standing, the others zeroed (Table A).
    cache: threshold of diffusers' first-block cache, which skips most of FLUX in steps that change little; 0: none.
    """

    height: int = 1024
    width: int = 1024
    steps: int = 28
    curve: Curve = "cosine"
    seed: int = 0
    batch: int = 1
    gate: Gate | None = None
    guidance: float | None = None
    true_cfg: float = 1.0
    long_side: int = 0
    fit: Fit = "resize"
    placement: Placement = "auto"
    text_layers: str = "all"
    image_layers: str = "all"
    system_prompt: str | None = None
    tiles: int | None = None
    cache: float = 0.0

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < MULTIPLE or value % MULTIPLE:
                down = max(MULTIPLE, value // MULTIPLE * MULTIPLE)
                raise SqueezeError(
                    f"The {name} is {value} px; it must be a multiple of {MULTIPLE}. "
                    f"Take {down} or {down + MULTIPLE}."
                )
        noise_levels(self.curve, self.steps)
        for layers in (self.text_layers, self.image_layers):
            LayerSelection.parse(layers)
        for name, accepted in (("fit", Fit), ("placement", Placement)):
            if getattr(self, name) not in get_args(accepted):
                choices = ", ".join(get_args(accepted))
                raise SqueezeError(f'The {name} is "{getattr(self, name)}"; choose one of {choices}.')
        if self.tiles is not None and not 1 <= self.tiles <= 12:
            raise SqueezeError(f"tiles is {self.tiles}; it must lie in 1 to 12.")
        if self.batch < 1:
            raise SqueezeError(f"The batch is {self.batch}; at least 1 picture is needed.")
        for name, value in (("guidance", self.guidance), ("true_cfg", self.true_cfg)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise SqueezeError(f"{name} is {value:g}; give a number of 0 or more.")
        check_seed(self.seed)
        check_threshold(self.cache)


def check_seed(seed: int) -> None:
    """Raises `SqueezeError` for a seed that torch does not take."""
    if not 0 <= seed <= LARGEST_SEED:
        raise SqueezeError(f"The seed is {seed}; give 0 or more, at most {LARGEST_SEED}.")


@dataclass(frozen=True)
class GenerationResult:
    """latents: [batch, 16, height / 8, width / 8], raw as the VAE decodes them, float32 on the CPU.

    images: the pictures. references: as encoded. sigmas: [steps + 1]. stages: one a step; without references
    the gate has nothing to hand over to, and every step is early. weights: what each MLLM layer gave.
    context_tokens: of the MLLM's context.
    """

    latents: torch.Tensor
    images: list[Image.Image]
    references: References
    sigmas: torch.Tensor
    stages: list[Stage]
    weights: LayerWeights
    context_tokens: int
