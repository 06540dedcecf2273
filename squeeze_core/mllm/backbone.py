"""The one interface that every MLLM family implements, and what identifies a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field

from .reading import PLAIN, Reading
from .states import LayerStates

if TYPE_CHECKING:
    from PIL.Image import Image

# Called after each layer or token with (done, total). May raise to stop: nothing stays hooked.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MLLMIdentity:
    """What an adapter is tied to.

    The hash is needed because sizes do not tell models apart: Qwen2.5-VL-7B and InternVL3-8B share theirs.

    model_type: the `model_type` of the transformers config, "internvl" or "qwen2_5_vl".
    hidden_size: width C of the language model.
    layers: transformer layers of the language model; there are layers + 1 states.
    final_norm_hash: first 16 hex digits of the SHA-256 of the final norm's weights as float32 bytes.
    name: what to tell a user to load, such as "OpenGVLab/InternVL3-8B-hf"; tells no models apart.
    """

    model_type: str
    hidden_size: Annotated[int, Field(ge=1)]  # checked where it is read from a file, as part of an `AdapterConfig`
    layers: Annotated[int, Field(ge=1)]
    final_norm_hash: str
    name: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        return f"{self.model_type}-{self.layers}x{self.hidden_size}-{self.final_norm_hash}"


@dataclass(frozen=True)
class Prompt:
    """A text and the pictures it speaks of, in order ("picture 1" is images[0]).

    images: RGB PIL pictures of any size.
    system_prompt: empty for none (the template's own default is not added behind the user's back).
    tiles: tiles a picture may be cut into, 1 to 12; 1 means 256 tokens a picture for InternVL3.
        Families without tiles (Qwen2.5-VL) read it as a budget of tiles * 256 tokens a picture.
    reading: form of the text, size of pictures and padding, where an adapter wants another than the plain one.
    """

    text: str
    images: tuple[Image, ...] = field(default=())
    system_prompt: str = ""
    tiles: int = 1
    reading: Reading = PLAIN


class Backbone(ABC):
    """A loaded, frozen MLLM.

    model: the module with all weights. A host that manages memory moves or pages `model` itself and then
        passes the device to compute on; nothing here moves weights.
    """

    identity: MLLMIdentity
    model: torch.nn.Module

    @property
    def encoder(self) -> torch.nn.Module:
        """The part of `model` that `encode` runs."""
        return self.model

    @abstractmethod
    def encode(
        self,
        prompt: Prompt,
        *,
        device: torch.device | str | None = None,
        store_device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> LayerStates:
        """States of all layers for one prompt with its pictures, captured by hooks as they are made.

        device: where to compute; None means where the weights are. store_device: where each state goes as
        soon as it is made; None means `device`. Equal to `output_hidden_states` bit for bit.
        """

    @abstractmethod
    def encode_many(
        self,
        prompts: Sequence[Prompt],
        *,
        device: torch.device | str | None = None,
        store_device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> list[LayerStates]:
        """States of each prompt, in order: those of `encode` but for rounding, from as few passes as memory bears.

        All pictures of a pass go through the vision tower at once, all prompts through the language model. The same
        prompts in the same order give the same bits. progress: counts the layers of all passes.
        """

    @abstractmethod
    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> str:
        """The model's answer as text. Greedy at temperature 0; otherwise deterministic by seed."""

    @abstractmethod
    def generate_json(
        self,
        prompt: Prompt,
        schema: Mapping[str, Any],
        *,
        seeds: Sequence[int] = (0,),
        words: int = 600,
        temperature: float = 0.0,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """Answers that are JSON of a schema, one for each seed, from one reading of the prompt.

        Every answer is whole and follows the schema, whatever the model. schema: JSON schema of what
        `constrained.fewest_tokens` knows. words: tokens that its texts may have beside what the schema asks for.
        The same seeds give the same answers.
        """
