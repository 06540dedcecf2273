"""A CLIP text encoder of random weights in FLUX.1-dev's folders: one layer, but CLIP-L's width."""

from __future__ import annotations

from pathlib import Path

import torch

from .evaluation.models import write_clip_tokenizer


def write(flux: Path, width: int = 768) -> Path:
    """flux/text_encoder and flux/tokenizer, as in FLUX.1-dev, whose config still says eos_token_id 2."""
    from transformers import CLIPTextConfig, CLIPTextModel

    vocabulary = write_clip_tokenizer(flux / "tokenizer")
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
