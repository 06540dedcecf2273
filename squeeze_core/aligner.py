"""X2I's aligner (arXiv 2503.06134): the states of all layers of an MLLM become FLUX's context, by a convolution.

The only public network of the kind. It is *not* token by token: the convolution runs over the plane of tokens and
hidden, so a token's context depends on its neighbours in the prompt, and prompts must not be joined before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

TOKEN_CHUNK = 32  # tokens convolved at a time: bounds the memory where a convolution unfolds its windows


class AlignerConfig(BaseModel):
    """Sizes of an aligner.

    kernel: side of the convolution's window, odd; None means one scale a layer and their mean, as InternVL2.5-1B's.
    bias, pooled_bias: whether the convolution, and the map to the pooled vector, have one.
    inner: width between the projector's two maps. pooled: width of the pooled vector, which FLUX otherwise has
        from CLIP-L.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: int | None = Field(default=5, ge=1, le=15)
    bias: bool = True
    inner: int = Field(default=4096, ge=1, le=2**16)
    pooled: int = Field(default=768, ge=1, le=2**16)
    pooled_bias: bool = True

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError(f"the kernel is {value} and must be odd")
        return value


class LayerConvolution(nn.Module):
    """[layers, tokens, hidden] -> [tokens, hidden]: a convolution with layers as channels, or a weighted mean."""

    def __init__(self, layers: int, config: AlignerConfig) -> None:
        super().__init__()
        self.layers = layers
        self.halo = 0 if config.kernel is None else config.kernel // 2
        self.conv = self.scale = None
        if config.kernel is None:
            self.scale = nn.Linear(layers, 1, bias=False)  # scale / layers, so that the sum is the mean
            nn.init.constant_(self.scale.weight, 1 / layers)
        else:
            self.conv = nn.Conv2d(layers, 1, config.kernel, padding=self.halo, bias=config.bias)

    def forward(
        self, states: torch.Tensor, kept: torch.Tensor | None = None, *, chunk: int = TOKEN_CHUNK
    ) -> torch.Tensor:
        """Pool.

        kept: [layers, tokens], zero where a layer is zeroed; None for all. chunk: tokens at a time; any number
        gives the same.
        """
        tokens = states.shape[1]
        parts = [states.new_empty(0, states.shape[2])]
        for start in range(0, tokens, chunk):
            end = min(start + chunk, tokens)
            # Neighbours on both sides; at the ends the convolution's own zeros.
            low, high = max(0, start - self.halo), min(tokens, end + self.halo)
            seen = states[:, low:high]
            if kept is not None:
                seen = seen * kept[:, low:high, None].to(seen.dtype)
            parts.append(self._plane(seen)[start - low : end - low])
        return torch.cat(parts)

    def _plane(self, states: torch.Tensor) -> torch.Tensor:
        if self.conv is not None:
            return rearrange(self.conv(states[None]), "1 1 t c -> t c")
        assert self.scale is not None
        return rearrange(self.scale(rearrange(states, "l t c -> t c l")), "t c 1 -> t c")

    def layer_weights(self) -> torch.Tensor:
        """[layers] float32, for plots: the scale of each layer, or the length (L2) of its window of the kernel.

        A sum over the window would say little, as neighbours in hidden have no order.
        """
        if self.conv is not None:
            return self.conv.weight.detach().float().flatten(2).norm(dim=-1)[0].cpu()
        assert self.scale is not None
        return self.scale.weight.detach().float()[0].cpu()


class AlignerProjector(nn.Module):
    """LayerNorm and two linear maps to the DiT's context; a third to the pooled vector."""

    def __init__(self, hidden: int, context: int, config: AlignerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.inner = nn.Linear(hidden, config.inner, bias=False)
        self.out = nn.Linear(config.inner, context, bias=False)
        self.pooled = nn.Linear(context, config.pooled, bias=config.pooled_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.gelu(self.inner(self.norm(x))))

    def vector(self, context: torch.Tensor) -> torch.Tensor:
        """Context [tokens, context] -> pooled vector [1, pooled]."""
        return self.pooled(F.gelu(context)).mean(0, keepdim=True)
