"""CLIP-L's pooled vector of a prompt: FLUX's other input from text, for adapters that are trained with it.

The paper does not speak of it. An adapter says in its config whether FLUX was trained with it or with zeros, where
all that FLUX knows of the text comes from the MLLM; the encoder is FLUX.1-dev's own, whose tokens are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import pretrained
from ..errors import SqueezeError

FETCH = 'hf download black-forest-labs/FLUX.1-dev --include "text_encoder/*" "tokenizer/*" --local-dir FLUX.1-dev'


class PooledText:
    """Prompts -> pooled vectors. model: transformers' `CLIPTextModel`, frozen. tokenizer: its own."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """768 for CLIP-L."""
        return self.model.config.hidden_size

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        """[prompts, width] float32 where the model is. Of a long prompt CLIP reads the first 77 tokens."""
        longest = self.model.config.max_position_embeddings
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        here = self.model.device
        with torch.autocast(here.type, enabled=False):
            return self.model(input_ids=tokens["input_ids"].to(here)).pooler_output.float()

    def check_width(self, wanted: int) -> None:
        """Raise `SqueezeError` unless FLUX takes vectors as wide as this CLIP gives."""
        if self.width != wanted:
            raise SqueezeError(
                f"This CLIP gives pooled vectors of {self.width} and FLUX takes {wanted}. Give CLIP-L: {FETCH}"
            )


def load(path: str | Path) -> PooledText:
    """From a diffusers folder of FLUX.1 (its text_encoder and tokenizer), or a folder of CLIP with its tokenizer.

    Float32, on the CPU. Raises `SqueezeError` for a folder of anything else, or with weights missing.
    """
    from transformers import AutoConfig, CLIPTextModel, CLIPTokenizer

    folder = Path(path).expanduser()
    whole = (folder / "text_encoder").is_dir()
    weights, words = (folder / "text_encoder", folder / "tokenizer") if whole else (folder, folder)
    advice = f"Give FLUX.1-dev's folder, or one of CLIP-L with its tokenizer: {FETCH}"
    kind = pretrained.load(AutoConfig, weights, advice).model_type
    if kind not in ("clip", "clip_text_model"):
        raise SqueezeError(f'"{weights}" is a model of kind "{kind}" and no CLIP. {advice}')
    tokenizer = pretrained.load(CLIPTokenizer, words, advice)
    return PooledText(pretrained.load(CLIPTextModel, weights, advice, use_safetensors=True), tokenizer)
