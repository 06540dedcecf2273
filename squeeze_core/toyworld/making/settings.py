"""Settings of the toy world's base training, one class a part; the files are `configs/toy_*.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ...errors import SqueezeError
from ...training.settings import LoopSettings
from ..scenes import ALL_STYLES, PHOTOS, WorldOptions


class PartSettings(LoopSettings):
    """The loop, and the pictures that are drawn.

    max_turn: degrees; carrying, counts, styles: see `scenes.WorldOptions`. plain_styles: photos only.
    init: a folder of weights to begin with, such as RUN/weights of an earlier run, "shipped" for those of the
        package, or None. What is not there begins anew.
    """

    init: str | None = None

    max_turn: float = Field(default=20.0, ge=0, le=180)
    carrying: float = Field(default=0.1, ge=0, le=1)
    counts: tuple[float, float, float] = (0.75, 0.17, 0.08)
    plain_styles: bool = False

    def world(self) -> WorldOptions:
        styles = PHOTOS if self.plain_styles else ALL_STYLES
        return WorldOptions(max_turn=self.max_turn, carrying=self.carrying, counts=self.counts, styles=styles)

    def task_identity(self) -> dict:
        """What a run goes on with only unchanged: everything that is not the loop's."""
        return self.model_dump(mode="json", exclude={*LoopSettings.model_fields, "init"})


class VAESettings(PartSettings):
    """crop: side in pixels of the squares that are learned from; a VAE works at any size.

    kl: weight of the distance to a standard normal. edges: weight of the error of differences between pixels.
    latent_noise: on the latents that the decoder reads, as a part of their standard deviation.
    """

    part: Literal["vae"]
    crop: int = Field(default=64, ge=16, le=128, multiple_of=8)
    kl: float = Field(default=1e-5, ge=0)
    latent_noise: float = Field(default=0.0, ge=0, le=1)
    edges: float = Field(default=0.5, ge=0)


class MLLMSettings(PartSettings):
    """describe: share of pictures to describe; the others are prompts to rewrite with references in sight.

    asked: weight of the loss on what is asked, beside 1 on the answer.
    """

    part: Literal["mllm"]
    describe: float = Field(default=0.5, ge=0, le=1)
    asked: float = Field(default=0.1, ge=0, le=1)


class FluxSettings(PartSettings):
    """pool: different pictures, whose latents and states are kept in memory (about 30 kB each).

    twins: share of samples that are painted with another picture of the same toy in sight, as VAE tokens, from a
        prompt that does not tell who it is. twin_pool: of these, different pairs.
    trios: share of those samples that are painted with two toys, each in a picture of its own. trio_pool: alike.
    textless: share of samples without text, the one zero token of the gate's late stage. twins_textless: alike, of
        those with other pictures in sight, which alone speak in that stage.
    guidance: FLUX's guidance input while training.
    """

    part: Literal["flux"]
    pool: int = Field(default=8192, ge=1)
    twins: float = Field(default=0.0, ge=0, le=1)
    twin_pool: int = Field(default=8192, ge=1)
    trios: float = Field(default=0.0, ge=0, le=1)
    trio_pool: int = Field(default=2048, ge=1)
    textless: float = Field(default=0.1, ge=0, le=1)
    twins_textless: float = Field(default=0.1, ge=0, le=1)
    guidance: float = Field(default=1.0, ge=0)


Settings = Annotated[VAESettings | MLLMSettings | FluxSettings, Field(discriminator="part")]
PARTS = ("vae", "mllm", "flux")


def parse(values: dict) -> VAESettings | MLLMSettings | FluxSettings:
    """Raises `SqueezeError` for the first key that is wrong."""
    try:
        return TypeAdapter(Settings).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in PARTS)
        raise SqueezeError(f'The toy config\'s "{key}" is not right: {first["msg"]}.') from error
