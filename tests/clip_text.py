"""A CLIP text encoder of random weights in FLUX.1-dev's folders: one layer, but CLIP-L's width."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch


def write_tokenizer(folder: Path) -> dict[str, int]:
    """CLIP's files with letters for tokens; returns the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(string.ascii_lowercase + string.digits + ",.-!")
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return vocabulary


def write(flux: Path, width: int = 768) -> Path:
    """flux/text_encoder and flux/tokenizer, as in FLUX.1-dev, whose config still says eos_token_id 2."""
    from transformers import CLIPTextConfig, CLIPTextModel

    vocabulary = write_tokenizer(flux / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=width,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=0,
                eos_token_id=2,
            )
        )
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)  # from its start all prompts look alike
    model.save_pretrained(flux / "text_encoder")
    return flux
