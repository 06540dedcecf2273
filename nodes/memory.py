"""How many bytes a forward needs beside its weights: what the memory manager is asked to keep free.

Upper estimates: too many costs some paging, too few an out-of-memory error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..squeeze_core.mllm.backbone import Prompt
from ..squeeze_core.mllm.batches import PASS_TOKENS
from ..squeeze_core.mllm.states import LayerStates

SAFETY = 1.5
TOKENS_PER_TILE = 256
PATCHES_PER_TOKEN = 4  # both families merge 2 x 2 patches of the vision tower into a token


def prompt_tokens(prompt: Prompt) -> tuple[int, int]:
    """(text, image) tokens of a prompt, at most: two characters a token, all tiles and the overview used."""
    tiles = prompt.tiles + (prompt.tiles > 1)
    words = prompt.reading.words(prompt.text, len(prompt.images))
    text = (len(words) + len(prompt.system_prompt)) // 2 + 64
    image = len(prompt.images) * tiles * TOKENS_PER_TILE
    return max(text, prompt.reading.pad_to - image), image


def encode_bytes(config: Any, prompts: Sequence[Prompt], item: int, *, stored: bool) -> int:
    """For the largest forward over all layers; vision tower and language model run one after the other.

    config: the transformers config of the MLLM, with `text_config` and `vision_config`. prompts: those of
    `Backbone.encode_many`, at least one. item: bytes of an activation. stored: all layer states stay on the device
    that computes.
    """
    counts = [prompt_tokens(prompt) for prompt in prompts]
    longest = max(text + image for text, image in counts)
    padded = max(longest, min(PASS_TOKENS, longest * len(prompts)))
    images = min(padded, sum(image for _, image in counts))
    largest = max(_language(config, padded, longest), _vision(config, images))
    tokens = sum(text + image for text, image in counts)
    layers = config.text_config.num_hidden_layers + 1
    states = layers * tokens * config.text_config.hidden_size if stored else 0
    return int(SAFETY * largest * item) + states * item


def generate_bytes(config: Any, prompt: Prompt, max_new_tokens: int, item: int, answers: int = 1) -> int:
    """For the reading of the prompt, the growing caches of keys and values, and float32 logits.

    answers: side by side; the prompt is read once, and each has a cache of its own.
    """
    text, image = prompt_tokens(prompt)
    tokens, sizes = text + image + max_new_tokens, config.text_config
    head = sizes.hidden_size // sizes.num_attention_heads
    cached = 2 * answers * tokens * sizes.num_hidden_layers * sizes.num_key_value_heads * head
    logits = 4 * answers * sizes.vocab_size * 4
    largest = max(_language(config, tokens), _vision(config, image))
    return int(SAFETY * (largest + cached) * item) + logits


def aggregate_bytes(states: LayerStates, item: int) -> int:
    """For the states themselves, copies of each modality's, and one chunk of queries, keys and norms."""
    from ..squeeze_core.lap import TOKEN_CHUNK

    copies = 3 * states.states.numel()
    chunk = 8 * states.layers * min(states.tokens, TOKEN_CHUNK) * states.hidden
    return int((copies + SAFETY * chunk) * item)


def _language(config: Any, tokens: int, keys: int | None = None) -> int:
    """Values alive at once in a layer, norms in float32 among them, and the attention mask.

    keys: tokens that each can attend to; None: all.
    """
    text = config.text_config
    keys = tokens if keys is None else keys
    return tokens * (8 * text.hidden_size + 3 * text.intermediate_size) + 2 * tokens * keys


def _vision(config: Any, image_tokens: int) -> int:
    """All tiles are one batch."""
    vision = config.vision_config
    return image_tokens * PATCHES_PER_TOKEN * (8 * vision.hidden_size + 3 * vision.intermediate_size)
