"""Tiny random models in the files of the real ones: an LLM, FLUX.1-dev's folder with a LoRA, SAM2."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ... import clip_text, t5_text
from ...training import tiny

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)


def qwen3(folder: Path) -> Path:
    from transformers import AutoTokenizer, GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    from ...mllm import checkpoints

    checkpoints.qwen(folder / "vision")
    tokenizer = AutoTokenizer.from_pretrained(folder / "vision")
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = Qwen3Config(
        vocab_size=len(tokenizer) + 3,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=end,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=[end])
    model.save_pretrained(folder)
    return folder


def flux(folder: Path) -> Path:
    """FLUX.1-dev's whole folder, and uno.safetensors with a LoRA that changes what is painted."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    from squeeze_core.flux.lora import attention_modules
    from squeeze_core.toyworld import vae
    from squeeze_core.toyworld.seeding import fill

    transformer = FluxTransformer2DModel(**tiny.FLUX)
    fill(transformer, 0)
    transformer.save_pretrained(folder / "transformer")
    autoencoder = AutoencoderKL(**vae.CONFIG)
    fill(autoencoder, 0)
    autoencoder.save_pretrained(folder / "vae")
    clip_text.write(folder)
    t5_text.write(folder, tiny.FLUX["joint_attention_dim"])
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "FluxPipeline",
        "_diffusers_version": "0.35.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for module in attention_modules(1, 1):
        for part, shape in (("A", (4, 128)), ("B", (128, 4))):
            lora[f"transformer.{module}.lora_{part}.weight"] = torch.randn(shape, generator=generator) * 0.3
    save_file(lora, folder / "uno.safetensors")
    return folder


def sam2(folder: Path) -> Path:
    from transformers import Sam2Config, Sam2ImageProcessorFast, Sam2Model, Sam2Processor, Sam2VisionConfig
    from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

    torch.manual_seed(4)
    backbone = Sam2HieraDetConfig(
        hidden_size=12,
        num_attention_heads=1,
        image_size=[128, 128],
        patch_kernel_size=[7, 7],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[12, 24, 48, 96],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_positional_embedding_background_size=[8, 8],
        window_size_per_stage=[4, 2, 4, 2],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[96, 48, 24, 12],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        fpn_hidden_size=32,
    )
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "iou_head_hidden_dim": 16, "num_attention_heads": 2},
    )
    Sam2Model(config).save_pretrained(folder)
    processor = Sam2ImageProcessorFast(size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32})
    Sam2Processor(processor).save_pretrained(folder)
    return folder
