"""The MLLM reads instruction and pictures together and writes the prompt for a text encoder.

T5 cannot see the pictures. "The hat of picture 1" becomes that hat, described: so the MLLM's reading is of
use with public FLUX weights, before any adapter is trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import SqueezeError
from .backbone import Backbone, Progress, Prompt

if TYPE_CHECKING:
    from PIL.Image import Image

_TASK = (
    "You write prompts for a text-to-image model that cannot see any picture. "
    "Read the instruction together with the attached pictures, which are numbered in order from 1, and "
    "describe in English the one new picture that the instruction asks for. "
    "Replace every reference to an attached picture by what it shows there: the kind of thing, its colours, "
    "material, shape, markings and, for people, hair and clothing. "
    "Keep everything else the instruction says about scene, action, style and mood, and add nothing that "
    "contradicts it. Never mention that pictures were attached, and never number them. "
    "Answer with the description alone: no title, no quotation marks, no explanation."
)

# One sentence each, added to the task.
STYLES: dict[str, str] = {
    "natural": "Write one paragraph of two to four plain sentences.",
    "faithful": "Write two to four sentences, and spend most words on the exact look of the subjects taken "
    "from the pictures, so that they are recognised.",
    "detailed": "Write one paragraph of five to eight sentences that also covers setting, light, composition "
    "and style.",
    "short": "Write one sentence of at most thirty words.",
    "tags": "Write ten to thirty short descriptive phrases separated by commas instead of sentences.",
}

_ORDINAL = r"(?:first|second|third|fourth|fifth|sixth|last|other)"
_NUMBER = r"(?:#?\d+|one|two|three|four|five|six)"
_PICTURE = r"(?:picture|image|photo|photograph)"
_MENTION = re.compile(
    rf",?\s*\(?\b(?:as\s+)?(?:seen\s+|shown\s+)?(?:from|in|of)\s+(?:the\s+)?"
    rf"(?:{_ORDINAL}\s+{_PICTURE}|{_PICTURE}\s+{_NUMBER})\b\)?",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^(?:sure|certainly|of course|here(?:'s| is)|prompt|description|answer|output|text-to-image prompt)\b"
    r"[^:\n.]{0,60}:\s*|^(?:sure|certainly|of course)[!,.]\s*",
    re.IGNORECASE,
)
_QUOTES = "\"'`“”‘’«»"


def write_prompt(
    backbone: Backbone,
    instruction: str,
    images: Sequence[Image] = (),
    style: str = "natural",
    seed: int = 0,
    *,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    tiles: int = 1,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> str:
    """One line of English that describes the picture to make, for T5 or any other text encoder.

    images: "picture 1" in the instruction is images[0]. style: a key of `STYLES`.
    seed: matters only with a temperature above 0. progress: called with (tokens, max_new_tokens).

    Raises SqueezeError for an empty instruction, an unknown style, or an answer with nothing in it.
    """
    if style not in STYLES:
        raise SqueezeError(f"The style is {style!r}; accepted are {', '.join(STYLES)}.")
    if not instruction.strip():
        raise SqueezeError("The instruction is empty: say what the new picture should show.")
    tokens = 0

    def counted(done: int, limit: int) -> None:
        nonlocal tokens
        tokens = done
        if progress is not None:
            progress(done, limit)

    answer = backbone.generate(
        Prompt(
            text=f"Instruction: {instruction.strip()}",
            images=tuple(images),
            system_prompt=f"{_TASK} {STYLES[style]}",
            tiles=tiles,
        ),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        device=device,
        progress=counted,
    )
    text = clean_answer(answer, cut_off=tokens >= max_new_tokens)
    if not text:
        raise SqueezeError(
            "The model answered with nothing that can be used. "
            "Rephrase the instruction, or give a temperature above 0 and another seed."
        )
    return text


def clean_answer(answer: str, cut_off: bool = False) -> str:
    """A chat answer as one line of prompt: without thoughts, labels, quotes, markdown and picture numbers.

    cut_off: the answer ended at the token limit; its last sentence goes when it is not the only one.
    """
    text = re.sub(r"<think>.*?(?:</think>|\Z)", "", answer, flags=re.DOTALL).strip()
    text = re.sub(r"^```\w*\s*|\s*```$", "", text)
    text = re.sub(r"^\s*(?:#{1,6}|[-*+•]|\d+[.)])\s+", "", text, flags=re.MULTILINE)
    text = re.sub(r"(\*\*|__|`)(?=\S)(.+?)(?<=\S)\1", r"\2", text, flags=re.DOTALL)
    text = " ".join(text.split()).strip(_QUOTES + " ")
    for _ in range(2):  # "Sure! Prompt: ..."
        text = _LABEL.sub("", text, count=1).strip(_QUOTES + " ")
    text = _MENTION.sub("", text).strip()
    if cut_off and (whole := re.match(r".*[.!?](?=\s)", text)) and not text.endswith((".", "!", "?")):
        text = whole[0]
    return text if re.search(r"\w", text) else ""
