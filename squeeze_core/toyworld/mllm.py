"""A tiny InternVL3 in a folder of the `-hf` layout, read by the very code that reads the real one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import tokenizer
from .seeding import Gains, seeded
from .tokenizer import token_id, write_json

if TYPE_CHECKING:
    import torch

IMAGE_SIZE = 112
PATCH = 14
IMAGE_TOKENS = (IMAGE_SIZE // PATCH // 2) ** 2  # 16: the pixel shuffle takes 2 x 2 patches together
HIDDEN = 192
LAYERS = 6

CONFIG: dict[str, Any] = {
    "architectures": ["InternVLForConditionalGeneration"],
    "downsample_ratio": 0.5,
    "image_seq_length": IMAGE_TOKENS,
    "image_token_id": token_id("<IMG_CONTEXT>"),
    "model_type": "internvl",
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "text_config": {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": token_id("<|endoftext|>"),
        "eos_token_id": token_id("<|im_end|>"),
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": 256,
        "max_position_embeddings": 8192,
        "max_window_layers": LAYERS,
        "model_type": "qwen2",
        "num_attention_heads": 3,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": tokenizer.VOCABULARY,
    },
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": 128,
        "image_size": [IMAGE_SIZE, IMAGE_SIZE],
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 256,
        "layer_norm_eps": 1e-6,
        "layer_scale_init_value": 0.1,
        "model_type": "internvl_vision",
        "norm_type": "layer_norm",
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 3,
        "patch_size": [PATCH, PATCH],
        "projection_dropout": 0.0,
        "torch_dtype": "float32",
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
        "use_mean_pooling": True,
        "use_qk_norm": False,
    },
}
PIXELS: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
}
_IMAGES = {
    "crop_to_patches": False,
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "max_patches": 12,
    "min_patches": 1,
    "processor_class": "InternVLProcessor",
    **PIXELS,
}

_GAINS: Gains = (
    (r"embed_tokens", HIDDEN**0.5 / 2),  # rows, not a layer: half the size of a normalised state
    (r"(cls_token|position_embeddings)", 8.0),
    (r"lambda_[12]", 0.5),
)


def write(folder: Path, seed: int, trained: dict[str, torch.Tensor] | None = None) -> None:
    """Write config, float32 weights, tokenizer and processor. Touches no global random numbers.

    trained: the weights, in the names of transformers' state dict; None for untrained ones.
    """
    from safetensors.torch import save_file
    from transformers import AutoConfig, InternVLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", CONFIG)
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": token_id("<|endoftext|>"), "eos_token_id": token_id("<|im_end|>")},
    )
    write_json(folder / "preprocessor_config.json", _IMAGES)
    write_json(
        folder / "video_preprocessor_config.json",
        {**PIXELS, "video_processor_type": "InternVLVideoProcessor"},
    )
    write_json(
        folder / "processor_config.json",
        {"image_seq_length": IMAGE_TOKENS, "processor_class": "InternVLProcessor"},
    )
    tokenizer.write(folder)

    if trained is not None:
        save_file(trained, folder / "model.safetensors", metadata={"format": "pt"})
        return
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    model = seeded(lambda: InternVLForConditionalGeneration(config), seed, _GAINS)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}  # tied
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
