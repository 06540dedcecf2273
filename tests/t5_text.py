"""A T5 encoder of random weights with its fast tokenizer, in FLUX.1-dev's folders: two layers, no pretraining."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ("a an the photo of toy red and blue star beach at night on dog picture subject").split()  # noqa: SIM905


def write(flux: Path, width: int) -> Path:
    """flux/text_encoder_2 and flux/tokenizer_2: words or, for others, letters; the end of the text is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz.,"]
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(f"▁{word}", -2.0) for word in WORDS] + [(letter, -8.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    T5TokenizerFast(tokenizer_object=tokenizer, extra_ids=0).save_pretrained(flux / "tokenizer_2")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = T5EncoderModel(
            T5Config(vocab_size=len(pieces), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
        )
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3)
    model.save_pretrained(flux / "text_encoder_2")
    return flux
