"""How a prompt is put to the MLLM, where an adapter was trained on another way than the plain one.

System prompt and tiles are asked for elsewhere (`Prompt`); this is the rest: the form of the text, the size of
pictures, and padding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch


class Reading(BaseModel):
    """The defaults are the plain way: the text as it is, pictures by `tiles`, no padding.

    text: "dictionary" puts it as X2I's aligners were trained on it, `{'Text input': ..., ...}`.
    picture_side: px; 0 leaves the size to the family. keep_shape: at most picture_side^2 pixels in the picture's
        own shape; else the picture is squeezed into a square of that side. InternVL, which reads tiles of one
        size, ignores both.
    numbered: "Picture 1: " before the first picture, and so on, as Qwen's template does when asked to.
    pad_to: the prompt is filled up to so many tokens, which attention does not see, but whose states count as
        text; a longer prompt stays as it is. pad_side: where they go.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Literal["plain", "dictionary"] = "plain"
    picture_side: int = Field(default=0, ge=0, le=2**12)
    keep_shape: bool = True
    numbered: bool = False
    pad_to: int = Field(default=0, ge=0, le=2**13)
    pad_side: Literal["left", "right"] = "left"

    def words(self, text: str, pictures: int) -> str:
        """The text as the MLLM reads it, beside so many pictures."""
        if self.text == "plain":
            return text
        there = "yes" if pictures else "no"
        return str({"Text input": text, "Instruction editing description": "no", "image input": there})

    def marks(self, pictures: list[str]) -> list[str]:
        """What stands for each picture, with its number where that is asked for."""
        if not self.numbered:
            return pictures
        return [f"Picture {number}: {mark}" for number, mark in enumerate(pictures, start=1)]

    def padded(self, encoded: dict[str, torch.Tensor], token: int) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask [1, tokens], filled up with `token`."""
        from torch.nn.functional import pad

        more = self.pad_to - encoded["input_ids"].shape[1]
        if more <= 0:
            return encoded
        where = (more, 0) if self.pad_side == "left" else (0, more)
        filled = {"input_ids": token, "attention_mask": 0}
        return {name: pad(tensor, where, value=filled[name]) for name, tensor in encoded.items()}

    def unlike(self, given: Reading) -> list[str]:
        """Where another reading differs from this one, each with both values."""
        return [
            f"{name} is {getattr(given, name)}, and the adapter was trained with {getattr(self, name)}"
            for name in type(self).model_fields
            if getattr(given, name) != getattr(self, name)
        ]


PLAIN = Reading()
