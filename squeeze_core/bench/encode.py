"""Encoding: what loading an MLLM needs in memory, and that nothing is computed a second time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from PIL import Image

from ..errors import SqueezeError
from ..gate import Gate
from ..generation import GenerationSettings
from ..pipeline import SqueezePipeline
from . import mllm_loading


def measure(*, quick: bool = False) -> dict[str, float]:
    """Loading memory (left out when quick, and where it cannot be measured), and repeated work.

    again_ratio: time of encoding the same prompt and picture again, over the first time.
    *_runs: calls of any layer of the MLLM or of the VAE's encoder when generating once more with one thing
    changed; 0 means that nothing was computed again.
    """
    numbers: dict[str, float] = {}
    if not quick:
        with suppress(SqueezeError):  # needs Linux
            numbers |= mllm_loading.measure()
    return numbers | _repeated()


def _repeated() -> dict[str, float]:
    from .. import toyworld

    pipeline = SqueezePipeline.from_toy_world(toyworld.load())
    prompt, pictures = "a mug on a beach", [Image.new("RGB", (96, 64), "orange")]
    first = GenerationSettings(height=64, width=64, steps=4)
    changed = {
        "same": first,
        "gate": replace(first, gate=Gate(0.7, 0.3)),
        "seed": replace(first, seed=7),
        "sigma": replace(first, steps=5, curve="flux"),
        "guidance": replace(first, guidance=1.0),
        "layers": replace(first, text_layers="0-1", image_layers="none"),
    }
    numbers: dict[str, float] = {}
    with _calls(pipeline.mllm.model, pipeline.vae.encoder) as calls:
        pipeline.generate(prompt, pictures, first)
        numbers["first_runs"] = len(calls)
        for name, settings in changed.items():
            calls.clear()
            pipeline.generate(prompt, pictures, settings)
            numbers[f"{name}_runs"] = len(calls)
    return numbers | _times(pipeline)


def _times(pipeline: SqueezePipeline) -> dict[str, float]:
    from ..mllm.backbone import Prompt

    prompt = Prompt("another mug on a beach", (Image.new("RGB", (96, 64), "teal"),))
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        pipeline.encode(prompt)
        seconds.append(time.perf_counter() - start)
    return {"first_s": seconds[0], "again_s": seconds[1], "again_ratio": seconds[1] / seconds[0]}


@contextmanager
def _calls(*modules: torch.nn.Module) -> Iterator[list[str]]:
    """The names of all layers that run inside the block."""
    calls: list[str] = []
    hooks = [
        layer.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for module in modules
        for name, layer in module.named_modules()
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
