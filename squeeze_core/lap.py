"""Layerwise attention pooling (LAP, section 3.2): one token's states of all layers become one vector.

Attention runs over the layer axis, token by token, so the cost grows with tokens only linearly and a batch is
a concatenation of tokens. What the paper leaves open is set in `LAPConfig`.

Only the pooled vector leaves a LAP, so the values and the output projection of the last attention fold: with
layer weights w and attention A of a head, a_j = sum_i w_i A_ij, and

    pooled = sum_i w_i x_i + W_o concat_h( W_v^h sum_j a_j^h x_j )

is the plain form exactly, at about half its multiply-adds and without a value for every layer.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from .errors import SqueezeError

TOKEN_CHUNK = 256  # tokens pooled at a time: bounds the memory of queries and keys


class LAPConfig(BaseModel):
    """The parts of a LAP that the paper does not fix.

    heads: attention heads; None means heads of 128, as many as fit the width.
    blocks: transformer blocks over the layers, 1 or more; the last one is pooled.
    mlp: whether each block has an MLP (then the last block cannot be folded).
    bottleneck: width inside the blocks; None means the MLLM's own.
    layer_embedding: a learned, zero-initialised vector for each layer, added before attention.
    residual: add the MLLM's last layer to the pooled vector (Table 6); done by the aggregator, as a LAP may be of
        other layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    heads: int | None = Field(default=None, ge=1)
    blocks: int = Field(default=1, ge=1, le=4)
    mlp: bool = False
    mlp_ratio: float = Field(default=4.0, gt=0, le=16)
    bottleneck: int | None = Field(default=None, ge=1, le=2**16)
    layer_embedding: bool = False
    residual: bool = False

    def head_count(self, hidden: int) -> int:
        width = self.bottleneck or hidden
        heads = self.heads or max(1, width // 128)
        if width % heads:
            raise SqueezeError(
                f"{heads} heads do not divide a width of {width}. Set heads to a divisor of {width}."
            )
        return heads


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32 and returned in the input's dtype."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.apply_weight(x, self.weight)

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """`forward` with the weight given, for hosts that page or cast weights as they are used."""
        return F.rms_norm(x.float(), x.shape[-1:], weight.float(), self.eps).to(x.dtype)


class HeadwiseLinear(nn.Linear):
    """A linear map whose rows belong to heads: one input for all of them, or one for each.

    [n, in] -> [n, heads * d], as any linear map; [n, heads, in] -> [n, heads * d], head h being W^h x_h.
    """

    def __init__(self, width_in: int, width_out: int, heads: int) -> None:
        super().__init__(width_in, width_out, bias=False)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.apply_weight(x, self.weight)

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """`forward` with the weight given, for hosts that page or cast weights as they are used."""
        if x.ndim == 2:
            return F.linear(x, weight)
        per_head = rearrange(weight, "(h d) c -> h d c", h=self.heads)
        return rearrange(torch.einsum("nhc,hdc->nhd", x, per_head), "n h d -> n (h d)")


class LayerAttention(nn.Module):
    """Multi-head attention over the layers of one token, pre-RMSNorm."""

    def __init__(self, width: int, heads: int, layers: int, layer_embedding: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = RMSNorm(width)
        self.layer_embedding = nn.Embedding(layers, width) if layer_embedding else None
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = HeadwiseLinear(width, width, heads)
        self.out = nn.Linear(width, width, bias=False)

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, layers, width] -> the same, normalised, with the layer embedding."""
        x = self.norm(x)
        if self.layer_embedding is None:
            return x
        return x + self.layer_embedding(torch.arange(x.shape[1], device=x.device)).to(x.dtype)

    def attention(self, normed: torch.Tensor) -> torch.Tensor:
        """[tokens, layers, width] -> [tokens, heads, layers i, layers j], rows summing to 1, float32."""
        query = rearrange(self.query(normed), "t i (h d) -> t h i d", h=self.heads)
        key = rearrange(self.key(normed), "t j (h d) -> t h j d", h=self.heads)
        logits = torch.einsum("thid,thjd->thij", query, key).float() / math.sqrt(query.shape[-1])
        return logits.softmax(-1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every layer's update [tokens, layers, width], and the attention."""
        normed = self.normed(x)
        attention = self.attention(normed)
        value = self.value(normed.flatten(0, 1))  # every layer's, which `folded` does without
        value = rearrange(value, "(t j) (h d) -> t h j d", j=x.shape[1], h=self.heads)
        mixed = torch.einsum("thij,thjd->thid", attention.to(value.dtype), value)
        return self.out(rearrange(mixed, "t h i d -> t i (h d)")), attention

    def folded(self, x: torch.Tensor, pool: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
        """The pooled update [tokens, width], and a [tokens, heads, layers]: what each layer gives."""
        normed = self.normed(x)
        given = pool(self.attention(normed).to(x.dtype).transpose(-1, -2)).squeeze(-1)  # sum_i w_i A_ij
        mixed = torch.einsum("thj,tjc->thc", given, normed)
        return self.out(self.value(mixed)), given


class LayerBlock(nn.Module):
    """Attention over the layers and, if asked for, an MLP, both residual."""

    def __init__(self, width: int, heads: int, layers: int, config: LAPConfig) -> None:
        super().__init__()
        self.attention = LayerAttention(width, heads, layers, config.layer_embedding)
        self.mlp = None
        if config.mlp:
            inner = int(width * config.mlp_ratio)
            self.mlp = nn.Sequential(
                RMSNorm(width),
                nn.Linear(width, inner, bias=False),
                nn.GELU(approximate="tanh"),
                nn.Linear(inner, width, bias=False),
            )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        update, attention = self.attention(x)
        x = x + update
        return (x if self.mlp is None else x + self.mlp(x)), attention


class LayerwiseAttentionPooling(nn.Module):
    """LAP: [tokens, layers, hidden] -> [tokens, hidden].

    At initialisation it is the mean over the layers: output projections are zero, layer weights 1 / layers.
    """

    def __init__(self, hidden: int, layers: int, config: LAPConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LAPConfig()
        self.layers = layers
        width = config.bottleneck or hidden
        heads = config.head_count(hidden)
        self.down = nn.Linear(hidden, width, bias=False) if config.bottleneck else None
        self.up = nn.Linear(width, hidden, bias=False) if config.bottleneck else None
        self.blocks = nn.ModuleList(LayerBlock(width, heads, layers, config) for _ in range(config.blocks))
        self.pool = nn.Linear(layers, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The mean over the layers, with room to learn."""
        nn.init.constant_(self.pool.weight, 1 / self.layers)
        if self.up is not None:
            nn.init.zeros_(self.up.weight)
        for block in self._blocks():
            if self.up is None:
                nn.init.zeros_(block.attention.out.weight)
                if block.mlp is not None:
                    nn.init.zeros_(cast(nn.Linear, block.mlp[-1]).weight)
            if block.attention.layer_embedding is not None:
                nn.init.zeros_(block.attention.layer_embedding.weight)

    @property
    def foldable(self) -> bool:
        """Whether the last block has no MLP, which would need every layer."""
        return not self.config.mlp

    def forward(self, states: torch.Tensor, *, folded: bool | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pool.

        states: [tokens, layers, hidden]. folded: which form; None means folded where it can be.
        Returns the pooled vectors [tokens, hidden] and, for plots, what each layer gives through attention,
        [tokens, layers], the mean over heads of a_j (signed: layer weights are not a softmax). Fig. 3(b).
        """
        if states.shape[1] != self.layers:
            raise SqueezeError(
                f"This aggregator pools {self.layers} layers and was given {states.shape[1]}. "
                "Use the MLLM that the adapter was trained with."
            )
        if folded and not self.foldable:
            raise ValueError("A last block with an MLP cannot be folded")
        if states.shape[0] == 0:
            return states.new_zeros(0, states.shape[2]), states.new_zeros(0, self.layers)
        fold = self.foldable if folded is None else folded
        chunks = [self._chunk(chunk, fold) for chunk in states.split(TOKEN_CHUNK)]
        return torch.cat([pooled for pooled, _ in chunks]), torch.cat([given for _, given in chunks])

    def _chunk(self, x: torch.Tensor, folded: bool) -> tuple[torch.Tensor, torch.Tensor]:
        inner = x if self.down is None else self.down(x)
        *earlier, last = self._blocks()
        for block in earlier:
            inner, _ = block(inner)
        if folded:
            update, given = last.attention.folded(inner, self.pool)
            pooled = self._weighted(inner) + update
        else:
            inner, attention = last(inner)
            pooled = self._weighted(inner)
            given = self.pool(attention.to(x.dtype).transpose(-1, -2)).squeeze(-1)
        if self.up is not None:
            pooled = self._weighted(x) + self.up(pooled)
        return pooled, given.mean(1)

    def _blocks(self) -> list[LayerBlock]:
        return cast("list[LayerBlock]", list(self.blocks))

    def _weighted(self, x: torch.Tensor) -> torch.Tensor:
        """sum_i w_i x_i: [tokens, layers, width] -> [tokens, width]."""
        return self.pool(x.transpose(1, 2)).squeeze(-1)
