"""Exact attention by groups of queries that see the same keys: no mask in memory, and less work.

Keys fall into blocks: the words of one owner, the picture's tokens of one owner, one reference. What a query sees
is one number a block, so that queries are sorted into groups by rows of a small table. A group's keys are
gathered; only strengths other than 1 and grey regions leave a bias, of the group's own keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .visibility import Visibility, log

# (q, k, v, bias or None) -> result; q, k, v [batch, heads, tokens, dim]; bias [1, 1, 1 or queries, keys].
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


PIECE = 1024  # queries of a grey region that are computed at a time


@dataclass(frozen=True)
class Group:
    """Queries that see the same keys.

    queries, keys: indices [n], long; None means all tokens. bias: [1 or queries, blocks] float32, or None: what is
    added to the keys of each block. block_of: [keys], the block of each key; with a bias only.
    """

    queries: torch.Tensor | None
    keys: torch.Tensor | None
    bias: torch.Tensor | None = None
    block_of: torch.Tensor | None = None

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Group:
        """On the device, the bias in the dtype of the queries: a float32 one is misread in 16 bits by cuDNN."""
        indices = (self.queries, self.keys, self.block_of)
        queries, keys, block_of = (None if part is None else part.to(device) for part in indices)
        return Group(queries, keys, None if self.bias is None else self.bias.to(device, dtype), block_of)

    def added(self) -> torch.Tensor | None:
        """[1, 1, 1 or queries, keys]: the bias written out."""
        if self.bias is None or self.block_of is None:
            return None
        return self.bias.index_select(1, self.block_of)[None, None]


def groups(seen: Visibility) -> tuple[Group, ...]:
    """The groups of all tokens; every token is a query of exactly one."""
    table, block_of = _table(seen)
    rows, pattern = torch.unique(table > -math.inf, dim=0, return_inverse=True)
    made = []
    for number, sees in enumerate(rows):
        queries = (pattern == number).nonzero()[:, 0]
        keys = sees[block_of].nonzero()[:, 0]
        strengths = table[queries]
        if (strengths == strengths[:1]).all():
            strengths = strengths[:1]
        looked_at = None if len(keys) == len(table) else keys
        if not strengths[:, sees].any():
            made.append(Group(None if len(queries) == len(table) else queries, looked_at))
        elif len(strengths) == 1:
            everybody = None if len(queries) == len(table) else queries
            made.append(Group(everybody, looked_at, strengths, block_of[keys]))
        else:  # in pieces, so that only one piece's bias is written out at a time
            for some, bias in zip(queries.split(PIECE), strengths.split(PIECE)):
                made.append(Group(some, looked_at, bias, block_of[keys]))
    return tuple(made)


def _table(seen: Visibility) -> tuple[torch.Tensor, torch.Tensor]:
    """([tokens, blocks] bias of each block for each query, [tokens] the block that a key lies in)."""
    words, picture, references = len(seen.words), len(seen.picture), seen.references
    owners = torch.cat([seen.words, seen.picture])
    kinds = (owners.new_zeros(words), owners.new_ones(picture))
    blocks, block_of = torch.unique(torch.stack([torch.cat(kinds), owners], 1), dim=0, return_inverse=True)
    parts = [block_of]
    for number, span in enumerate(references):
        parts.append(torch.full((span.tokens,), len(blocks) + number))

    rows = []
    owner_of_query = torch.cat([owners, *(torch.full((span.tokens,), span.owner) for span in references)])
    is_word = torch.arange(len(owner_of_query)) < words
    is_reference = torch.arange(len(owner_of_query)) >= words + picture
    is_picture = ~is_word & ~is_reference
    for kind, owner in blocks.tolist():
        mine = owner_of_query == owner
        rows.append(mine | (owner == 0) if kind == 0 else mine | is_picture | (owner_of_query == 0))
    columns = [torch.where(row, 0.0, -math.inf) for row in rows]
    for span in references:
        mine = owner_of_query == span.owner
        seen_by = mine if span.owner else mine | ~is_reference
        column = torch.where(seen_by, log(span.strength), -math.inf)
        if span.region is not None:
            column[words : words + picture] += span.region.float().log()
        columns.append(column)
    return torch.stack(columns, 1), torch.cat(parts)


def scaled_dot_product(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, added: torch.Tensor | None
) -> torch.Tensor:
    """torch's own attention as an `Attention`."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=added)


def grouped_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    parts: tuple[Group, ...],
    attention: Attention = scaled_dot_product,
    *,
    mask: torch.Tensor | None = None,
    dim: int = 2,
    out_dim: int = 2,
) -> torch.Tensor:
    """The masked attention of all queries, without its mask.

    q, k, v: tokens along `dim`; parts on their device and in their dtype (`Group.to`). attention: what computes one
    group; its result has its tokens along `out_dim`. mask: one that the model has of its own,
    [batch or 1, heads or 1, queries or 1, keys] of floats, added to the groups' biases.
    """
    if parts[0].queries is None:
        return attention(q, *_keys(k, v, parts[0], dim), _added(parts[0], mask))
    result: torch.Tensor | None = None
    for part in parts:
        done = attention(_taken(q, part.queries, dim), *_keys(k, v, part, dim), _added(part, mask))
        if result is None:
            shape = list(done.shape)
            shape[out_dim] = q.shape[dim]
            result = done.new_empty(shape)
        queries = part.queries
        assert queries is not None  # None is all, and then it is the only group
        result = result.index_copy_(out_dim, queries, done)
    assert result is not None  # every token is in a group
    return result


def _taken(tokens: torch.Tensor, index: torch.Tensor | None, dim: int) -> torch.Tensor:
    return tokens if index is None else tokens.index_select(dim, index)


def _keys(k: torch.Tensor, v: torch.Tensor, part: Group, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _taken(k, part.keys, dim), _taken(v, part.keys, dim)


def _added(part: Group, mask: torch.Tensor | None) -> torch.Tensor | None:
    """The group's bias and what the model's own mask adds to its queries and keys."""
    own = part.added()
    if mask is None:
        return own
    mask = _taken(mask, part.keys, 3)
    if mask.shape[2] > 1:
        mask = _taken(mask, part.queries, 2)
    return mask if own is None else own + mask
