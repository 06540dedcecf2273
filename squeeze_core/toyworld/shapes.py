"""Names and shapes of diffusers' FLUX and VAE, written out: hosts make the toy world without diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def flux_shapes(config: Mapping[str, Any]) -> Shapes:
    """The state dict of `FluxTransformer2DModel(**config)`, with guidance."""
    head = config["attention_head_dim"]
    width = config["num_attention_heads"] * head
    shapes: Shapes = {}

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    for name, columns in (
        ("timestep_embedder", 256),
        ("guidance_embedder", 256),
        ("text_embedder", config["pooled_projection_dim"]),
    ):
        linear(f"time_text_embed.{name}.linear_1", width, columns)
        linear(f"time_text_embed.{name}.linear_2", width, width)
    linear("context_embedder", width, config["joint_attention_dim"])
    linear("x_embedder", width, config["in_channels"])
    for i in range(config["num_layers"]):
        block = f"transformer_blocks.{i}"
        for stream in ("norm1", "norm1_context"):
            linear(f"{block}.{stream}.linear", 6 * width, width)
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            shapes[f"{block}.attn.{norm}.weight"] = (head,)
        for name in (
            *("to_q", "to_k", "to_v", "to_out.0"),
            *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        ):
            linear(f"{block}.attn.{name}", width, width)
        for stream in ("ff", "ff_context"):
            linear(f"{block}.{stream}.net.0.proj", 4 * width, width)
            linear(f"{block}.{stream}.net.2", width, 4 * width)
    for i in range(config["num_single_layers"]):
        block = f"single_transformer_blocks.{i}"
        linear(f"{block}.norm.linear", 3 * width, width)
        linear(f"{block}.proj_mlp", 4 * width, width)
        linear(f"{block}.proj_out", width, 5 * width)
        for norm in ("norm_q", "norm_k"):
            shapes[f"{block}.attn.{norm}.weight"] = (head,)
        for name in ("to_q", "to_k", "to_v"):
            linear(f"{block}.attn.{name}", width, width)
    linear("norm_out.linear", 2 * width, width)
    linear("proj_out", config["in_channels"], width)
    return shapes


def vae_shapes(config: Mapping[str, Any]) -> Shapes:
    """The state dict of `AutoencoderKL(**config)` without quantisation convolutions."""
    channels, layers, latent = config["block_out_channels"], config["layers_per_block"], config["latent_channels"]
    shapes: Shapes = {}

    def conv(name: str, out: int, into: int, size: int = 3) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into, size, size), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def resnet(name: str, out: int, into: int) -> None:
        norm(f"{name}.norm1", into)
        conv(f"{name}.conv1", out, into)
        norm(f"{name}.norm2", out)
        conv(f"{name}.conv2", out, out)
        if out != into:
            conv(f"{name}.conv_shortcut", out, into, 1)

    def middle(name: str, width: int) -> None:
        attention = f"{name}.attentions.0"
        norm(f"{attention}.group_norm", width)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes[f"{attention}.{part}.weight"], shapes[f"{attention}.{part}.bias"] = (width, width), (width,)
        for i in range(2):
            resnet(f"{name}.resnets.{i}", width, width)

    def half(name: str, way: str, widths: tuple[int, ...], resnets: int, sampler: str, into: int) -> None:
        """Blocks that narrow or widen the picture, all but the last with a sampler."""
        for i, width in enumerate(widths):
            for j in range(resnets):
                resnet(f"{name}.{way}_blocks.{i}.resnets.{j}", width, into)
                into = width
            if i < len(widths) - 1:
                conv(f"{name}.{way}_blocks.{i}.{sampler}.0.conv", width, width)

    conv("encoder.conv_in", channels[0], 3)
    half("encoder", "down", channels, layers, "downsamplers", channels[0])
    middle("encoder.mid_block", channels[-1])
    norm("encoder.conv_norm_out", channels[-1])
    conv("encoder.conv_out", 2 * latent, channels[-1])
    conv("decoder.conv_in", channels[-1], latent)
    half("decoder", "up", channels[::-1], layers + 1, "upsamplers", channels[-1])
    middle("decoder.mid_block", channels[-1])
    norm("decoder.conv_norm_out", channels[0])
    conv("decoder.conv_out", 3, channels[0])
    return shapes
