"""One training step at the true sizes with random weights: seconds, share of the GPU's peak, memory.

    python -m squeeze_core.bench.training --batch 16 8 --out benchmarks/training_step.json

Needs no file of any model. `--size tiny` runs the same code in a second on a CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ..data.examples import Example, Walk
from ..draws import Draws
from ..files import write_text
from ..mllm.backbone import MLLMIdentity, Prompt
from ..mllm.internvl import InternVL
from ..training.attention import allowed
from ..training.build import new_task
from ..training.config import TrainConfig, parse_config
from ..training.latents import Picture
from ..training.squeeze_task import Sample, SqueezeTask

# Dense bf16 TFLOP/s of makers' data sheets, by what a GPU's name contains.
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "RTX 4090": 165, "RTX 3090": 71}

SIZES: dict[str, dict[str, Any]] = {
    "full": {
        "flux": {"guidance_embeds": True},  # FLUX.1-dev is diffusers' default
        "text": {
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
            "vocab_size": 151674,
        },
        "vision": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096},
        "rank": 512,
        "resolution": 512,
    },
    "tiny": {
        "flux": {
            "guidance_embeds": True,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_attention_heads": 1,
            "joint_attention_dim": 64,
        },
        "text": {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 128,
            "vocab_size": 512,
        },
        "vision": {"hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2},
        "rank": 4,
        "resolution": 128,
    },
}
PICTURE_TOKEN = 500
WORDS = range(40, 91)  # tokens of a caption


class Untokenized(InternVL):
    """InternVL of random weights: a prompt becomes as many random tokens as its text says."""

    def inputs(self, prompt: Prompt, device: torch.device | str) -> dict[str, torch.Tensor]:
        ids = torch.arange(int(prompt.text)) % 400
        if not prompt.images:
            return {"input_ids": ids[None].to(device)}
        side = self.config.vision_config.image_size[0]
        pictures = torch.full((self.tokens_per_tile * len(prompt.images),), PICTURE_TOKEN)
        pixels = torch.zeros(len(prompt.images), 3, side, side, dtype=self.model.dtype)
        return {"input_ids": torch.cat([pictures, ids])[None].to(device), "pixel_values": pixels.to(device)}

    def _padding(self) -> int:
        return 0


class Noise:
    """Pairs of noise; the text of a prompt is its number of tokens."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __len__(self) -> int:
        return 1024

    def __getitem__(self, number: int) -> Example:
        rng = np.random.default_rng(number)
        pictures = rng.integers(0, 255, (2, self.side, self.side, 3), np.uint8)
        reference, target = (Image.fromarray(each) for each in pictures)
        return Example(str(rng.choice(WORDS)), target, (reference,), str(number))

    def identity(self) -> str:
        return "noise"


def random_task(size: str, stage: int, calls: str, device: torch.device) -> SqueezeTask:
    """The task of a stage with random weights, bf16 on a GPU, made where they will be computed with."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import AutoConfig, InternVLForConditionalGeneration

    from ..toyworld import vae as toy_vae

    shape = SIZES[size]
    config = _config(shape, stage, calls)
    with device, _default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32):
        flux = FluxTransformer2DModel(**shape["flux"])
        settings = AutoConfig.for_model(
            "internvl",
            text_config={"model_type": "qwen2", "max_position_embeddings": 4096, **shape["text"]},
            vision_config={"model_type": "internvl_vision", **shape["vision"]},
            image_token_id=PICTURE_TOKEN,
        )
        mllm = InternVLForConditionalGeneration(settings)
    vae = AutoencoderKL(**toy_vae.CONFIG)  # small, because real runs keep the latents
    for model in (flux, mllm, vae):
        model.eval().requires_grad_(False)
    identity = MLLMIdentity("internvl", shape["text"]["hidden_size"], shape["text"]["num_hidden_layers"], "0" * 16)
    walk = Walk([Noise(shape["resolution"])], [1], Draws(0))
    return new_task(config, flux, vae, Untokenized(mllm, None, None, identity), walk)


def measure(task: SqueezeTask, batch_size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds of a step (median), FLOPs of the models, peak memory in bytes, of one process."""
    task.to(device)
    task.module.train()
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-5, fused=device.type == "cuda" or None)
    batches = [
        [_encoded(task, sample) for sample in task.batch(range(i * batch_size, (i + 1) * batch_size))]
        for i in range(repeats + 1)
    ]
    flops = _flops(task, batches[0])  # also warms up
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for batch in batches[1:]:
        began = time.perf_counter()
        with allowed(task.config.attention_kernels):
            with _autocast(device):
                loss, numbers = task.loss(batch)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if not torch.isfinite(loss.detach()):  # waits for the GPU as well
            raise ArithmeticError(f"the loss is {float(loss.detach())}")
        seconds.append(time.perf_counter() - began)
    step = median(seconds)
    return {
        "batch": batch_size,
        "seconds": round(step, 4),
        "samples_per_second": round(batch_size / step, 3),
        "model_tflop": round(flops / 1e12, 3),
        "tflop_per_second": round(flops / 1e12 / step, 2),
        "flux_calls": numbers["flux_calls"],
        "context_tokens": round(numbers["context_tokens"], 1),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
        if device.type == "cuda"
        else None,
        "trained_parameters": sum(p.numel() for p in parameters),
    }


def _encoded(task: SqueezeTask, sample: Sample) -> Sample:
    """With the latents of its pictures, as the cache has them after the first turn over the data."""

    def known(picture: Picture) -> Picture:
        return replace(picture, latents=task.latents.latents(picture, task.device).cpu())

    return replace(sample, target=known(sample.target), references=tuple(map(known, sample.references)))


def _flops(task: SqueezeTask, batch: list) -> int:
    """Of one step as the models need it: what checkpointing computes again is not counted."""
    with allowed(task.config.attention_kernels):
        with counted_flops() as reading, torch.no_grad():
            task._states([sample.prompt for sample in batch if sample.prompt is not None])
        with _autocast(task.device), counted_flops() as forward:
            loss, _ = task.loss(batch)
        with counted_flops() as backward:
            loss.backward()
    trained = forward.get_total_flops() - reading.get_total_flops()
    again = trained if task.config.gradient_checkpointing else 0
    return forward.get_total_flops() + backward.get_total_flops() - again


def counted_flops() -> FlopCounterMode:
    """PyTorch's counter, whose own count of attention refuses fewer key and value heads than query heads."""
    forward = ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    names = (f"_scaled_dot_product_{name}" for name in forward)
    known = {getattr(torch.ops.aten, name): _attention_flops for name in names if hasattr(torch.ops.aten, name)}
    return FlopCounterMode(display=False, custom_mapping=known)


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *rest: Any, **more: Any
) -> int:
    """Of [batch, heads, tokens, width]: scores and their sums, of every query head, whatever it shares."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _config(shape: dict[str, Any], stage: int, calls: str) -> TrainConfig:
    return parse_config(
        {
            "models": {"flux": "random", "mllm": "random"},
            "data": [{"kind": "toyworld"}],
            "vae_references": stage == 2,
            "steps": 1,
            "batch_size": 1,
            "lora": {"rank": shape["rank"]},
            "resolution": shape["resolution"],
            "reference_long_side": shape["resolution"],
            "precision": "bf16",
            "calls": calls,
        }
    )


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure each batch size; one that does not fit is written down as such."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    parser.add_argument("--stage", type=int, choices=(1, 2), default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--calls", choices=("group", "mask", "each"), default="group")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--peak", type=float, help="dense bf16 TFLOP/s of the GPU, where its name does not tell")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = given.peak or next((value for part, value in PEAKS.items() if part in name), None)
    rows = []
    for batch in given.batch:
        task = random_task(given.size, given.stage, given.calls, device)
        about = {"device": name, "torch": torch.__version__, "size": given.size, "stage": given.stage}
        try:
            row = {**about, **measure(task, batch, given.repeats, device)}
            row["mfu"] = None if peak is None else round(row["tflop_per_second"] / peak, 4)
        except torch.cuda.OutOfMemoryError:
            row = {**about, "batch": batch, "out_of_memory": True}
        rows.append({**row, "calls": given.calls})
        print(json.dumps(rows[-1]), flush=True)
        del task
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if given.out is not None:
        write_text(given.out, json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
