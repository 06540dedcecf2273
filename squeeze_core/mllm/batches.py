"""Several prompts in one forward pass: padded at their ends, and in several passes where they are too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn.functional import pad

from .backbone import Prompt

# Padded tokens of one pass: 1.4 GB of activations for 8B in 16 bits, and far beyond where launches count.
PASS_TOKENS = 2**13

_OF_TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")  # [1, tokens]; other inputs are of pictures


def passes(prompts: Sequence[Prompt], lengths: Sequence[int], most: int = PASS_TOKENS) -> list[list[int]]:
    """Numbers of the prompts that share each pass, the longest first; a longer one than `most` goes alone.

    lengths: tokens of each. Prompts that their reading pads share one only with their like: the states of that
    padding are wanted too, and depend on how the family counts positions with and without pictures.
    """
    kinds = [(True, bool(one.images)) if one.reading.pad_to else (False, False) for one in prompts]
    parts: list[list[int]] = []
    for number in sorted(range(len(prompts)), key=lambda number: (kinds[number], -lengths[number])):
        first = parts[-1][0] if parts else None
        fits = first is not None and (len(parts[-1]) + 1) * lengths[first] <= most
        if first is None or not fits or kinds[first] != kinds[number]:
            parts.append([])
        parts[-1].append(number)
    return parts


def joined(inputs: Sequence[Mapping[str, torch.Tensor]], token: int) -> dict[str, torch.Tensor]:
    """The inputs of single prompts as those of one pass, filled up at the end with `token`, which none attends.

    Pictures follow one another in the order of the prompts.
    """
    if len(inputs) == 1:
        return dict(inputs[0])
    whole = [{"attention_mask": torch.ones_like(one["input_ids"]), **one} for one in inputs]
    longest = max(one["input_ids"].shape[1] for one in whole)
    names = dict.fromkeys(name for one in whole for name in one)
    made = {}
    for name in names:
        parts = [one[name] for one in whole if name in one]
        if name in _OF_TOKENS:
            filling = token if name == "input_ids" else 0
            parts = [pad(part, (0, longest - part.shape[1]), value=filling) for part in parts]
        made[name] = torch.cat(parts)
    return made
