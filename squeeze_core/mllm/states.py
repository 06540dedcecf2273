"""`LayerStates`: what an MLLM has to say about one prompt with its pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..errors import SqueezeError
from .reading import Reading


@dataclass(frozen=True)
class LayerStates:
    """Hidden states of every layer of a frozen MLLM (section 3.2: F_0 ... F_M).

    states: [layers + 1, tokens, hidden]. Layer 0 is the embedding, with picture features in place; the
        last is after the final norm.
    image_mask: [tokens] bool, true at the tokens of pictures.
    model_id: which MLLM made them (`MLLMIdentity.label`), compared with what an adapter was trained on.
    system_prompt, tiles, reading: those of the `Prompt`, compared likewise; None when unknown.

    The DLA works token by token, so a batch is a concatenation along tokens and needs no padding; with the variant
    "convolution", which does not, each prompt goes alone.
    """

    states: torch.Tensor
    image_mask: torch.Tensor
    model_id: str
    system_prompt: str | None = None
    tiles: int | None = None
    reading: Reading | None = None

    def __post_init__(self) -> None:
        if self.states.ndim != 3:
            raise SqueezeError(f"Layer states must be [layers + 1, tokens, hidden]; got {list(self.states.shape)}.")
        if self.image_mask.dtype != torch.bool or self.image_mask.shape != self.states.shape[1:2]:
            raise SqueezeError(
                f"The image mask must be bool of shape [{self.states.shape[1]}] like the tokens; "
                f"got {self.image_mask.dtype} {list(self.image_mask.shape)}."
            )

    @property
    def layers(self) -> int:
        """Number of states, the embedding included: transformer layers + 1."""
        return self.states.shape[0]

    @property
    def tokens(self) -> int:
        return self.states.shape[1]

    @property
    def hidden(self) -> int:
        return self.states.shape[2]

    @property
    def image_tokens(self) -> int:
        return int(self.image_mask.sum())

    def to(self, *args, **kwargs) -> LayerStates:
        """Like `torch.Tensor.to` for the states; the mask only moves."""
        states = self.states.to(*args, **kwargs)
        return replace(self, states=states, image_mask=self.image_mask.to(states.device))
