"""Dual Layer Aggregator (DLA, section 3.3): layer states of an MLLM become the DiT's context.

Text tokens and image tokens have a LAP each; neither sees the other's tokens or weights. The projector then
takes both to the width of the DiT's context. The baselines of Table 6 are the other variants, and X2I's aligner,
whose layers and projector are in `aligner.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from .aligner import AlignerConfig, AlignerProjector, LayerConvolution
from .errors import SqueezeError
from .lap import LAPConfig, LayerwiseAttentionPooling, RMSNorm
from .layers import LayerSelection

# Those in which a token's context depends on its own states alone.
Tokenwise = Literal["dual", "single", "last_layer", "blend_vit", "mix_vit"]
Variant = Literal[Tokenwise, "convolution"]

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class DLASettings(BaseModel):
    """What may be chosen of an aggregator.

    variant: "dual" (the paper's), or a row of Table 6: "single" LAP for both, "last_layer", "blend_vit" (a
        learned scalar mix of layer 0 and the last at image tokens, DreamEngine), "mix_vit" (layer 0 at image
        tokens, last layer at text tokens). "convolution" is X2I's aligner, see `aligner`, and not token by token.
    text_layers, image_layers: the layers trained on (Table B), not those zeroed at inference (Table A).
        A single LAP has one set, so both must be equal.
    """

    model_config = _FROZEN

    variant: Variant = "dual"
    text_layers: str = "all"
    image_layers: str = "all"
    lap: LAPConfig = LAPConfig()
    aligner: AlignerConfig = AlignerConfig()

    @field_validator("text_layers", "image_layers")
    @classmethod
    def _readable(cls, value: str) -> str:
        return str(LayerSelection.parse(value))


class _Sizes(BaseModel):
    model_config = _FROZEN

    # Upper bounds, because these numbers come out of files and tensors are made from them.
    hidden: int = Field(ge=1, le=2**16)
    layers: int = Field(ge=2, le=2**10)
    context: int = Field(ge=1, le=2**16)


class DLAConfig(DLASettings, _Sizes):  # in this order the sizes come first in a file's JSON
    """Shape and variant of an aggregator: what may be chosen, and the sizes that follow from the models.

    hidden, layers: of the MLLM, `layers` counting the embedding (29 for InternVL3-8B).
    context: width of the DiT's context, 4096 for FLUX.1.
    """

    def trained(self, image: bool) -> list[int]:
        """The layers that the text LAP, or the image LAP, was trained on. Raises `SqueezeError`."""
        chosen = LayerSelection.parse(self.image_layers if image else self.text_layers).indices(self.layers)
        if not chosen:
            raise SqueezeError("A LAP needs at least one layer to train on; got none.")
        return chosen


@dataclass(frozen=True)
class LayerWeights:
    """What each layer of the MLLM gave to a prompt, for plots (Fig. 3b).

    text, image: [layers] float32, or None where there were no such tokens or no LAP. Each is the mean over
        tokens and heads of the pooled attention a_j; signed, because layer weights are.
    text_direct, image_direct: [layers] float32, the learned layer weights w_i, the same for every prompt.
    note: what to say beside the plot.
    """

    text: torch.Tensor | None
    image: torch.Tensor | None
    text_direct: torch.Tensor | None
    image_direct: torch.Tensor | None
    note: str = ""


class Projector(nn.Module):
    """RMSNorm, then a linear map to the DiT's context width."""

    def __init__(self, hidden: int, context: int) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden)
        self.linear = nn.Linear(hidden, context)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x))


class DualLayerAggregator(nn.Module):
    """LayerStates -> context tokens, in any variant.

    Parameter names under `text`, `image` and `both` are those of the adapter file's `dla.*`.
    """

    def __init__(self, config: DLAConfig) -> None:
        super().__init__()
        self.config = config
        self.text = self.image = self.both = self.blend = self.plane = None
        if config.variant == "dual":
            self.text = self._lap(config.trained(image=False))
            self.image = self._lap(config.trained(image=True))
        elif config.variant == "single":
            if config.trained(image=True) != config.trained(image=False):
                raise SqueezeError(
                    f"A single LAP has one set of layers; got text {config.text_layers} "
                    f"and image {config.image_layers}. Make them equal, or use the dual variant."
                )
            self.both = self._lap(config.trained(image=False))
        elif config.variant == "blend_vit":
            self.blend = nn.Linear(2, 1, bias=False)
            nn.init.constant_(self.blend.weight, 0.5)
        elif config.variant == "convolution":
            self.plane = LayerConvolution(config.layers, config.aligner)

    def _lap(self, layers: list[int]) -> LayerwiseAttentionPooling:
        return LayerwiseAttentionPooling(self.config.hidden, len(layers), self.config.lap)

    def forward(
        self,
        states: torch.Tensor,
        image_mask: torch.Tensor,
        *,
        text_layers: LayerSelection | None = None,
        image_layers: LayerSelection | None = None,
        folded: bool | None = None,
    ) -> tuple[torch.Tensor, LayerWeights]:
        """Aggregate.

        states: [layers, tokens, hidden]. image_mask: [tokens] bool.
        text_layers, image_layers: layers left standing at inference; the others are zeroed (Table A).
        folded: of LAPs, see there. Whatever it is, a convolution goes over the tokens in chunks.
        Returns [tokens, hidden] in the order of the tokens, and the layer weights.
        Raises `SqueezeError` when the states do not fit or a selection names a layer that does not exist.
        """
        self._check(states, image_mask)
        if self.plane is not None:
            return self._convolve(self.plane, states, image_mask, text_layers, image_layers)
        pooled = states.new_empty(states.shape[1:])
        given: dict[bool, torch.Tensor | None] = {}
        for image, selection in ((False, text_layers), (True, image_layers)):
            tokens = image_mask if image else ~image_mask
            chosen = states[:, tokens]
            if selection is not None:
                kept = selection.mask(states.shape[0], states.device)
                chosen = chosen * kept[:, None, None].to(states.dtype)
            pooled[tokens], given[image] = self._pool(chosen, image, folded)
        return pooled, LayerWeights(given[False], given[True], self._direct(False), self._direct(True))

    def _convolve(
        self,
        plane: LayerConvolution,
        states: torch.Tensor,
        image_mask: torch.Tensor,
        text_layers: LayerSelection | None,
        image_layers: LayerSelection | None,
    ) -> tuple[torch.Tensor, LayerWeights]:
        """All tokens together, with their neighbours."""
        kept = None
        if text_layers is not None or image_layers is not None:
            every = torch.ones(states.shape[0], dtype=torch.bool, device=states.device)
            text, image = (
                every if selection is None else selection.mask(states.shape[0], states.device)
                for selection in (text_layers, image_layers)
            )
            kept = torch.where(image_mask, image[:, None], text[:, None])
            if bool(kept.all()):
                kept = None
        given = plane.layer_weights()
        return plane(states, kept), LayerWeights(None, None, given, given, "The aligner's own, for every prompt.")

    def _pool(self, states: torch.Tensor, image: bool, folded: bool | None):
        """[layers, tokens, hidden] of one modality -> [tokens, hidden], and [layers] what each layer gave."""
        last = states[-1]
        match self.config.variant:
            case "last_layer":
                return last, None
            case "mix_vit":
                return (states[0] if image else last), None
            case "blend_vit":
                if not image:
                    return last, None
                assert self.blend is not None
                return self.blend(torch.stack([states[0], last], -1)).squeeze(-1), None
        trained = self.config.trained(image)
        lap = self.lap(image)
        pooled, given = lap(states[trained].transpose(0, 1), folded=folded)
        if self.config.lap.residual:
            pooled = pooled + last
        if not given.shape[0]:
            return pooled, None
        return pooled, self._all_layers(given.float().mean(0), trained)

    def lap(self, image: bool) -> LayerwiseAttentionPooling:
        """The LAP of image tokens, or of text tokens; one and the same for "single"."""
        lap = self.both or (self.image if image else self.text)
        if lap is None:
            raise SqueezeError(f'The variant "{self.config.variant}" has no LAP.')
        return lap

    def _direct(self, image: bool) -> torch.Tensor | None:
        if self.config.variant not in ("dual", "single"):
            return None
        weight = self.lap(image).pool.weight.detach().flatten().float()
        return self._all_layers(weight, self.config.trained(image))

    def _all_layers(self, values: torch.Tensor, trained: list[int]) -> torch.Tensor:
        full = torch.zeros(self.config.layers)
        full[trained] = values.detach().cpu()
        return full

    def _check(self, states: torch.Tensor, image_mask: torch.Tensor) -> None:
        expected = (self.config.layers, self.config.hidden)
        if (states.shape[0], states.shape[2]) != expected:
            raise SqueezeError(
                f"The adapter was trained on {expected[0]} layers of width {expected[1]} and was given "
                f"{states.shape[0]} of width {states.shape[2]}. Load the MLLM that it names."
            )
        if image_mask.dtype != torch.bool or image_mask.shape != states.shape[1:2]:
            raise SqueezeError(
                f"The image mask must be bool of shape [{states.shape[1]}] like the tokens; "
                f"got {image_mask.dtype} {list(image_mask.shape)}."
            )


class Aggregator(nn.Module):
    """DLA and projector together: what an adapter file holds besides the LoRA.

    `forward` takes what `DualLayerAggregator` takes and returns context [tokens, context] and weights.
    """

    def __init__(self, config: DLAConfig) -> None:
        super().__init__()
        self.config = config
        self.dla = DualLayerAggregator(config)
        self.projector: Any
        if config.variant == "convolution":
            self.projector = AlignerProjector(config.hidden, config.context, config.aligner)
        else:
            self.projector = Projector(config.hidden, config.context)

    def forward(self, states: torch.Tensor, image_mask: torch.Tensor, **options):
        pooled, weights = self.dla(states, image_mask, **options)
        return self.projector(pooled), weights

    def vector(self, context: torch.Tensor) -> torch.Tensor:
        """Context [tokens, context] -> the aligner's pooled vector [1, width], in CLIP-L's place.

        Raises `SqueezeError` where the variant has none.
        """
        if not isinstance(self.projector, AlignerProjector):
            raise SqueezeError(f'The variant "{self.config.variant}" gives no pooled vector; "convolution" does.')
        return self.projector.vector(context)
