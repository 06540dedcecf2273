"""Tiny MLLM folders in the key layout, config and files of the real repositories.

Keys and config fields are those of OpenGVLab/InternVL3-*-hf and Qwen/Qwen2.5-VL-*; only the sizes are small.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# In the order of the real tokenizer, where the first has the id 151643.
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
INTERNVL_TOKENS = [
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
]
INTERNVL_CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
QWEN_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXTS = [
    "the red hat of picture 1 on the dog of picture 2",
    "a photo of a teapot on a wooden table at night",
]
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def internvl(
    folder: Path,
    *,
    old_keys: bool = True,
    norm_type: str = "layer_norm",
    attention_bias: bool = True,
    use_qk_norm: bool = False,
    tied: bool = False,
    with_head: bool = True,
    image_size: int = 56,
    layers: int = 3,
    hidden: int = 32,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A tiny InternVL3-hf folder. old_keys: `language_model.model.layers.*`, as the published files have."""
    tokenizer = _write_tokenizer(folder, internvl=True)
    config = transformers.InternVLConfig(
        vision_config={
            "model_type": "internvl_vision",
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "attention_bias": attention_bias,
            "use_qk_norm": use_qk_norm,
            "norm_type": norm_type,
            "image_size": [image_size, image_size],
            "patch_size": [14, 14],
        },
        text_config=_text_sizes(tokenizer, layers, hidden) | {"model_type": "qwen2", "tie_word_embeddings": tied},
        image_token_id=tokenizer.token_to_id("<IMG_CONTEXT>"),
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model = _random(transformers.InternVLForConditionalGeneration(config))
    prefixes = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "lm_head.": "language_model.lm_head.",
    }
    _write_weights(folder, model, prefixes if old_keys else {}, with_head and not tied, shards, dtype)
    settings = config.to_dict()
    settings["architectures"] = ["InternVLForConditionalGeneration"]
    _write_json(folder / "config.json", settings)
    side = {"height": image_size, "width": image_size}
    _write_json(
        folder / "preprocessor_config.json",
        {
            "crop_to_patches": False,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "GotOcr2ImageProcessorFast",
            "image_std": [0.229, 0.224, 0.225],
            "max_patches": 12,
            "min_patches": 1,
            "processor_class": "InternVLProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": side,
        },
    )
    _write_json(
        folder / "processor_config.json",
        {"image_seq_length": (image_size // 28) ** 2, "processor_class": "InternVLProcessor"},
    )
    _write_json(
        folder / "video_preprocessor_config.json",
        {
            "size": side,
            "processor_class": "InternVLProcessor",
            "video_processor_type": "InternVLVideoProcessor",
        },
    )
    (folder / "chat_template.jinja").write_text(INTERNVL_CHAT_TEMPLATE)
    return folder


def qwen(
    folder: Path,
    *,
    old_keys: bool = True,
    tied: bool = False,
    with_head: bool = True,
    layers: int = 3,
    shards: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A tiny Qwen2.5-VL-Instruct folder. old_keys: `model.layers.*` and `visual.*`, as published."""
    tokenizer = _write_tokenizer(folder, internvl=False)
    text = _text_sizes(tokenizer, layers, hidden=32)
    vision = {
        "model_type": "qwen2_5_vl",
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "out_hidden_size": 32,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
        "in_chans": 3,
    }
    # Flat, as the published config.json is: the language model's fields at the top level.
    settings = text | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "vision_config": vision,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "tie_word_embeddings": tied,
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": 28,
        "image_token_id": tokenizer.token_to_id("<|image_pad|>"),
        "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
        "vision_start_token_id": tokenizer.token_to_id("<|vision_start|>"),
        "vision_end_token_id": tokenizer.token_to_id("<|vision_end|>"),
    }
    _write_json(folder / "config.json", settings)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = _random(transformers.Qwen2_5_VLForConditionalGeneration(config))
    prefixes = {"model.language_model.": "model.", "model.visual.": "visual."}
    _write_weights(folder, model, prefixes if old_keys else {}, with_head and not tied, shards, dtype)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        },
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_CHAT_TEMPLATE}))
    return folder


def original_internvl(folder: Path, *, hidden: int = 3584, layers: int = 28) -> Path:
    """The config of an original (non -hf) InternVL3 repository, with one weight in its layout."""
    folder.mkdir(parents=True)
    language = {"hidden_size": hidden, "num_hidden_layers": layers, "architectures": ["Qwen2ForCausalLM"]}
    remote = {"AutoModel": "modeling_internvl_chat.InternVLChatModel"}
    _write_json(folder / "config.json", {"model_type": "internvl_chat", "auto_map": remote, "llm_config": language})
    save_file({"mlp1.0.weight": torch.zeros(4)}, folder / "model.safetensors")
    return folder


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def _random(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that every part of the model shows in the states, biases and norms included."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(base + 0.1 * torch.randn_like(parameter))
    return model


def _text_sizes(tokenizer: Tokenizer, layers: int, hidden: int) -> dict:
    return {
        "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
    }


def _write_weights(
    folder: Path,
    model: torch.nn.Module,
    prefixes: dict[str, str],
    head: bool,
    shards: int,
    dtype: torch.dtype,
) -> None:
    def rename(key: str) -> str:
        for new, old in prefixes.items():
            if key.startswith(new):
                return old + key.removeprefix(new)
        return key

    weights = {
        rename(key): value.to(dtype).contiguous().clone()
        for key, value in model.state_dict().items()
        if head or key != "lm_head.weight"
    }
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    keys = sorted(weights)
    index = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: weights[key] for key in keys[number::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def _write_tokenizer(folder: Path, *, internvl: bool) -> Tokenizer:
    """A byte-level BPE as Qwen2.5's, with a handful of merges and the real special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    special = SPECIAL_TOKENS + (INTERNVL_TOKENS if internvl else [])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    _write_json(folder / "vocab.json", model["vocab"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "bos_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": special[3:],
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in special
        },
    }
    if internvl:
        settings["processor_class"] = "InternVLProcessor"
        named = {
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        }
        settings |= {"extra_special_tokens": named, **named}
    _write_json(folder / "tokenizer_config.json", settings)
    return tokenizer


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, default=str), encoding="utf-8")
