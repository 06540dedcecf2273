"""How many bytes a forward needs beside its weights: what the memory manager is asked to keep free.

Upper estimates: too many costs some paging, too few an out-of-memory error.
"""

from __future__ import annotations

from typing import Any

import torch

from ..squeeze_core.mllm.backbone import Prompt
from ..squeeze_core.mllm.states import LayerStates

SAFETY = 1.5
TOKENS_PER_TILE = 256
PATCHES_PER_TOKEN = 4  # both families merge 2 x 2 patches of the vision tower into a token
ITEM = 4  # bytes of an activation, as if all were float32


def prompt_tokens(prompt: Prompt) -> tuple[int, int]:
    """(text, image) tokens of a prompt, at most: two characters a token, all tiles and the overview used."""
    tiles = prompt.tiles + (prompt.tiles > 1)
    text = (len(prompt.text) + len(prompt.system_prompt)) // 2 + 64
    return text, len(prompt.images) * tiles * TOKENS_PER_TILE


def encode_bytes(config: Any, prompt: Prompt, *, stored: bool) -> int:
    """For one forward over all layers. stored: all layer states stay on the device that computes.

    config: the transformers config of the MLLM, with `text_config` and `vision_config`.
    """
    text, image = prompt_tokens(prompt)
    states = _layers(config) * (text + image) * config.text_config.hidden_size * ITEM if stored else 0
    return int(SAFETY * (_language(config, text + image) + _vision(config, image))) + states


def generate_bytes(config: Any, prompt: Prompt, max_new_tokens: int) -> int:
    """For the reading of the prompt, the growing cache of keys and values, and the logits."""
    text, image = prompt_tokens(prompt)
    language = _language(config, text + image + max_new_tokens)
    logits = 4 * config.text_config.vocab_size * ITEM
    return int(SAFETY * (language + _vision(config, image) + logits))


def aggregate_bytes(states: LayerStates, dtype: torch.dtype) -> int:
    """For the states themselves, copies of each modality's, and one chunk of queries, keys and norms."""
    from ..squeeze_core.lap import TOKEN_CHUNK

    copies = 3 * states.states.numel() * dtype.itemsize
    chunk = 8 * states.layers * min(states.tokens, TOKEN_CHUNK) * states.hidden * ITEM
    return int(copies + SAFETY * chunk)


def _layers(config: Any) -> int:
    return config.text_config.num_hidden_layers + 1


def _language(config: Any, tokens: int) -> int:
    text = config.text_config
    width = 8 * text.hidden_size + 3 * text.intermediate_size
    head = text.hidden_size // text.num_attention_heads
    cached = 2 * text.num_hidden_layers * text.num_key_value_heads * head
    mask = 2 * tokens * tokens
    return (tokens * (width + cached) + mask) * ITEM


def _vision(config: Any, image_tokens: int) -> int:
    vision = config.vision_config
    patches = image_tokens * PATCHES_PER_TOKEN
    return patches * (8 * vision.hidden_size + 2 * vision.intermediate_size) * ITEM
