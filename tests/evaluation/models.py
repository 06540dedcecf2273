"""Tiny random models in the layout of the real ones, and a tiny DreamBench."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PROMPTS_AND_CLASSES = """Classes

subject_name,class
dog6,dog
rc_car,toy
vase,vase

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the jungle'.format(unique_token, class_token),
'a red {0} {1}'.format(unique_token, class_token),
'a cube shaped {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} in the snow'.format(unique_token, class_token),
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


def picture(seed: int, width: int = 80, height: int = 60) -> Image.Image:
    """Smooth, so that resizing does not turn it into the same grey as every other one."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def dreambench(folder: Path) -> Path:
    """Three subjects with 2, 3 and 1 references."""
    data = folder / "dataset"
    for number, (name, count) in enumerate({"dog6": 2, "rc_car": 3, "vase": 1}.items()):
        (data / name).mkdir(parents=True)
        for i in range(count):
            picture(100 * number + i, 70 + 9 * i, 64).save(data / name / f"{i:02d}.png")
    (data / "prompts_and_classes.txt").write_text(PROMPTS_AND_CLASSES, encoding="utf-8")
    return folder


def run(folder: Path, dataset: Path, seeds: int = 2) -> Path:
    """Random pictures for every case, so that scores differ."""
    from squeeze_core.evaluation import benchmarks
    from squeeze_core.evaluation.generated_files import file_name

    for number, sample in enumerate(benchmarks.read("dreambench", dataset).samples):
        for seed in range(seeds):
            path = folder / file_name(sample, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(1000 + 10 * number + seed, 72, 72).save(path)
    return folder


def dino(folder: Path) -> Path:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=56,
        patch_size=8,
        initializer_range=0.5,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(2)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_clip_tokenizer(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(
        **sizes,
        vocab_size=len(vocabulary),
        max_position_embeddings=77,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
        projection_dim=24,
    )
    vision = CLIPVisionConfig(**sizes, image_size=48, patch_size=8, projection_dim=24)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=24))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # far from its start, where all pictures look alike
    model.save_pretrained(folder)
    preprocessor = {
        "crop_size": {"height": 48, "width": 48},
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor",
        "resample": 3,
        "size": {"shortest_edge": 48},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return folder


def write_clip_tokenizer(folder: Path) -> dict[str, int]:
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


def owl(folder: Path) -> Path:
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTTextConfig, OwlViTVisionConfig

    torch.manual_seed(3)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_clip_tokenizer(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = OwlViTTextConfig(
        **sizes,
        vocab_size=len(vocabulary),
        max_position_embeddings=77,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    vision = OwlViTVisionConfig(**sizes, image_size=64, patch_size=16)
    config = OwlViTConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32)
    model = OwlViTForObjectDetection(config)
    with torch.no_grad():
        for parameter in model.box_head.parameters():
            parameter.mul_(0.05)  # boxes of a size that can be seen
    model.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "OwlViTImageProcessor",
        "processor_class": "OwlViTProcessor",
        "do_resize": True,
        "size": {"height": 64, "width": 64},
        "do_center_crop": False,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return folder


def grounding_dino(folder: Path) -> Path:
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    torch.manual_seed(4)
    folder.mkdir(parents=True, exist_ok=True)
    letters = string.ascii_lowercase + string.digits
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 1, 1],
            window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=len(tokens),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_n_points=2,
        decoder_n_points=2,
        num_queries=9,
        num_feature_levels=4,
        max_text_len=64,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def orient_anything(folder: Path, bins: int = 902, width: int = 64) -> Path:
    """The published file's layout: a whole DINOv2 and the head, in one pickled state dict."""
    from transformers import Dinov2Config, Dinov2Model

    from squeeze_core.vision.orientation import OrientationModel

    torch.manual_seed(5)
    config = Dinov2Config(
        hidden_size=width, num_hidden_layers=2, num_attention_heads=1, patch_size=14, image_size=70, mlp_ratio=4
    )
    model = OrientationModel(Dinov2Model(config), width, bins)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_()
            elif tensor.is_floating_point() and "lambda" not in name and "running_var" not in name:
                tensor.add_(0.3 * torch.randn_like(tensor))
    (folder / "ronormsigma1").mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "ronormsigma1" / "dino_weight.pt")
    return folder
