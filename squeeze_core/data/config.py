"""Which data sets a config names: the union of their kinds, for training and for building data alike."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class UNOSource(BaseModel):
    """UNO-1M; see `squeeze_core.data.sources.uno.UNO`."""

    model_config = _FROZEN

    kind: Literal["uno"]
    folder: str
    labels: str | None = None
    min_score: float = 4.0
    share: int = Field(default=1, ge=1)


class MUSARSource(BaseModel):
    """MUSAR-Gen; see `squeeze_core.data.sources.musar.MUSAR`."""

    model_config = _FROZEN

    kind: Literal["musar"]
    folder: str
    labels: str | None = None
    share: int = Field(default=1, ge=1)


class MusicSource(BaseModel):
    """What `squeeze data build` made; see `squeeze_core.data.sources.music.Music`."""

    model_config = _FROZEN

    kind: Literal["music"]
    folder: str
    fewest: int = Field(default=2, ge=1)
    most: int = Field(default=12, ge=1)
    share: int = Field(default=1, ge=1)


class ToySource(BaseModel):
    """The toy world's pairs, made on the fly: `squeeze_core.toyworld.examples.ToyExamples(**options)`."""

    model_config = _FROZEN

    kind: Literal["toyworld"]
    options: dict[str, Any] = {}
    share: int = Field(default=1, ge=1)


class TextSource(BaseModel):
    """file: .txt (a prompt a line), .jsonl or .parquet. column: of the latter two."""

    model_config = _FROZEN

    kind: Literal["texts"]
    file: str
    column: str = "text"
    share: int = Field(default=1, ge=1)


class DescribedSource(BaseModel):
    """A folder of pictures with words; see `data.described.PictureFolder`. describe: the MLLM writes what lacks."""

    model_config = _FROZEN

    kind: Literal["described"]
    folder: str
    describe: bool = False
    share: int = Field(default=1, ge=1)


DataSource = Annotated[UNOSource | MUSARSource | MusicSource | ToySource, Field(discriminator="kind")]
# What distillation learns from: words, and pictures with words; no pairs.
ToldSource = Annotated[TextSource | DescribedSource | ToySource, Field(discriminator="kind")]
KINDS = ("uno", "musar", "music", "toyworld", "texts", "described")
