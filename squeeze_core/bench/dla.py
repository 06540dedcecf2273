"""The folded LAP against the plain one, at the shapes of InternVL3-8B."""

from __future__ import annotations

from typing import cast

import torch

from ..lap import LayerBlock, LayerwiseAttentionPooling
from .measuring import compared, default_device, peak_bytes

HIDDEN, LAYERS = 3584, 29


def measure(
    *, tokens: int | None = None, hidden: int = HIDDEN, layers: int = LAYERS, quick: bool = False
) -> dict[str, float]:
    """Time and peak memory of both forms, their ratios, how far apart the results are.

    tokens: how many are pooled; None means 1024 on a GPU (four pictures), 32 on a CPU, fewer when quick.
    value_rows: rows of the value projection's output for each token, 1 where folded and `layers` where plain.
    """
    device = default_device()
    cuda = device.type == "cuda"
    tokens = tokens or ((256 if quick else 1024) if cuda else (8 if quick else 32))
    generator = torch.Generator().manual_seed(0)
    lap = LayerwiseAttentionPooling(hidden, layers)
    attention = cast(LayerBlock, lap.blocks[0]).attention
    for parameter in (attention.out.weight, lap.pool.weight):  # zero and constant otherwise
        torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
    lap = lap.requires_grad_(False).to(device)
    states = torch.randn(tokens, layers, hidden, generator=generator).to(device)

    rows: list[int] = []
    hook = attention.value.register_forward_hook(lambda *call: rows.append(call[2].shape[0]))
    forms = {"folded": True, "plain": False}
    results: dict[str, torch.Tensor] = {}
    numbers: dict[str, float] = {"tokens": tokens, "hidden": hidden, "layers": layers, "heads": attention.heads}
    for name, folded in forms.items():
        rows.clear()
        results[name] = lap(states, folded=folded)[0]
        numbers[f"{name}_value_rows"] = sum(rows) / tokens
    hook.remove()
    difference = (results["folded"] - results["plain"]).norm() / results["plain"].norm()
    numbers["relative_difference"] = difference.item()
    results.clear()

    if cuda:  # compared in float32, timed as used
        lap, states = lap.bfloat16(), states.bfloat16()
    runs = {name: lambda folded=folded: lap(states, folded=folded) for name, folded in forms.items()}
    seconds, ratios = compared(runs, "plain", 3 if quick else 5, device)
    memory = {name: peak_bytes(run, device) for name, run in runs.items()}
    for name in forms:
        numbers[f"{name}_s"], numbers[f"{name}_peak_bytes"] = seconds[name], memory[name]
    numbers["time_ratio"] = ratios["folded"]
    numbers["memory_ratio"] = memory["folded"] / memory["plain"]
    return numbers
