"""A prompt as the chat text that the MLLM reads: pictures first, in order, then the text.

Both families speak ChatML. The text is rendered here and not by the folder's own template, because Qwen's
adds "You are a helpful assistant." when no system prompt is given, and a trained adapter must see the same
tokens wherever the folder came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import SqueezeError
from .backbone import Prompt

# Written into adapters: what they were trained to read. Change it whenever `chat_text` changes.
PROMPT_TEMPLATE: Final = "chatml-pictures-first-v1"
ANSWER_END: Final = "<|im_end|>"
CHAT_END: Final = "<|im_end|>\n<|im_start|>assistant\n"  # what follows the text
MAX_TILES = 12
MOST_CHARACTERS = 20_000  # of a text: some 5,000 tokens, ten times the longest prompt that FLUX was trained on

# Typed by a user, these would be read as pictures or as the end of the message.
RESERVED = (
    "<IMG_CONTEXT>",
    "<img>",
    "</img>",
    "<image>",
    "<video>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)


def chat_text(prompt: Prompt, pictures: Sequence[str]) -> str:
    """The whole prompt up to where the answer begins.

    pictures: for each picture, the tokens that stand for it, as the family writes them.
    """
    system = f"<|im_start|>system\n{prompt.system_prompt}<|im_end|>\n" if prompt.system_prompt else ""
    marks, words = prompt.reading.marks(list(pictures)), prompt.reading.words(prompt.text, len(pictures))
    return f"{system}<|im_start|>user\n{''.join(marks)}{words}{CHAT_END}"


def check_prompt(prompt: Prompt) -> None:
    """Raises SqueezeError for a prompt that says nothing, or says it in the model's control tokens."""
    if not isinstance(prompt.tiles, int) or not 1 <= prompt.tiles <= MAX_TILES:
        raise SqueezeError(f"tiles is {prompt.tiles}; it must be a whole number from 1 to {MAX_TILES}.")
    if not prompt.text.strip() and not prompt.images:
        raise SqueezeError("The prompt is empty: give a text, at least one picture, or both.")
    for name, text in (("prompt", prompt.text), ("system prompt", prompt.system_prompt)):
        if len(text) > MOST_CHARACTERS:
            raise SqueezeError(f"The {name} has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read.")
        if any(0xD800 <= ord(sign) <= 0xDFFF for sign in text):
            raise SqueezeError(f"The {name} holds half of a sign (a lone surrogate). Type or paste it again.")
        for token in RESERVED:
            if token in text:
                raise SqueezeError(
                    f"The {name} contains {token}, which the model reads as a control token. "
                    "Remove it; pictures are given as images and come first by themselves."
                )
    for number, image in enumerate(prompt.images, start=1):
        width, height = image.size
        if min(width, height) < 1 or max(width, height) > 200 * min(width, height):
            raise SqueezeError(
                f"Picture {number} is {width}x{height} px; its long side may be at most 200 times its short "
                "side. Crop it."
            )
