"""What FLUX's own text encoder says of a text, token by token, with the characters that each token stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ... import pretrained
from ...data.told import Span
from ...errors import SqueezeError
from ...files import read_kept, save_atomically
from ..latents import weights_hash

FETCH = (
    'hf download black-forest-labs/FLUX.1-dev --include "text_encoder_2/*" "tokenizer_2/*" --local-dir FLUX.1-dev'
)


@dataclass(frozen=True)
class Said:
    """Of one text. states: [tokens, width] float32, padding included. spans: for each token but the padding the
    characters (begin, end) of the text that it stands for; equal where it stands for none."""

    states: torch.Tensor
    spans: tuple[Span, ...]


class Words(Protocol):
    """A text encoder as the teacher. width: of its states. identity: tells its weights from others."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def width(self) -> int: ...

    @property
    def identity(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> list[Said]: ...


class T5Words:
    """T5's encoder with its fast tokenizer, padded to `length` tokens as FLUX is used to; 0 for no padding.

    cache: folder in which states are kept by text, in 16 bits, to which they are rounded without one too; None
    keeps none.
    """

    def __init__(self, model: Any, tokenizer: Any, length: int = 512, cache: str | Path | None = None) -> None:
        self.model, self.tokenizer, self.length = model, tokenizer, length
        self.cache = None if cache is None else Path(cache).expanduser()

    @property
    def width(self) -> int:
        return self.model.config.d_model

    @cached_property
    def identity(self) -> str:
        ends = {name: value for name, value in self.model.state_dict().items() if "relative_attention_bias" in name}
        ends["norm"] = self.model.encoder.final_layer_norm.weight
        return f"t5 {self.width} {self.length} {weights_hash(ends)}"

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> list[Said]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Said:
        encoded = self.tokenizer(
            text, truncation=True, max_length=self.length or 512, return_offsets_mapping=True, return_tensors="pt"
        )
        spans = tuple((int(begin), int(end)) for begin, end in encoded["offset_mapping"][0])
        here = self.model.encoder.final_layer_norm.weight.device
        states = self._read(text)
        if states is None:
            ids = encoded["input_ids"]
            padding = max(0, self.length - ids.shape[1])
            ids = F.pad(ids, (0, padding), value=self.tokenizer.pad_token_id or 0).to(here)
            with torch.autocast(here.type, enabled=False):
                states = self.model(input_ids=ids).last_hidden_state[0]  # FLUX's padding is not masked
            states = states.to(torch.bfloat16)
            if self.cache is not None:
                save_atomically(self._path(text), {"states": states}, {})
        return Said(states.to(here).float(), spans)

    def _read(self, text: str) -> torch.Tensor | None:
        return None if self.cache is None else read_kept(self._path(text), "states")

    def _path(self, text: str) -> Path:
        assert self.cache is not None
        key = hashlib.sha256(f"{self.identity}\0{text}".encode()).hexdigest()[:32]
        return self.cache / key[:2] / f"{key}.safetensors"


def load(path: str | Path, length: int, cache: str | None = None) -> T5Words:
    """From a diffusers folder of FLUX.1 (text_encoder_2 and tokenizer_2), or a folder of T5 with its tokenizer.

    bf16, on the CPU. Raises `SqueezeError` for a folder of anything else, or with weights missing.
    """
    from transformers import AutoConfig, AutoTokenizer, T5EncoderModel

    folder = Path(path).expanduser()
    whole = (folder / "text_encoder_2").is_dir()
    weights, words = (folder / "text_encoder_2", folder / "tokenizer_2") if whole else (folder, folder)
    advice = f"The teacher needs FLUX.1-dev's T5 with its tokenizer: {FETCH}"
    kind = pretrained.load(AutoConfig, weights, advice).model_type
    if kind not in ("t5", "umt5", "mt5"):
        raise SqueezeError(f'"{weights}" is a model of the kind "{kind}" and no T5. {advice}')
    tokenizer = pretrained.load(AutoTokenizer, words, advice)
    if not tokenizer.is_fast:
        raise SqueezeError(
            f'The tokenizer in "{words}" has no tokenizer.json, which tells where words begin. {advice}'
        )
    return T5Words(pretrained.load(T5EncoderModel, weights, advice, dtype=torch.bfloat16), tokenizer, length, cache)
