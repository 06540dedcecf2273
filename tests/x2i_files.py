"""X2I's aligner from the facts of its layout alone: random weights under its key names, and its forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def random_state(
    layers: int,
    hidden: int,
    *,
    scaled: bool = False,
    context: int = 24,
    inner: int = 24,
    pooled: int = 12,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """As `torch.save`d by X2I; the real ones have context and inner 4096 and pooled 768."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / max(1, shape[-1]) ** 0.5

    pooling = (
        {"cha_scale": 1 + draw(1, layers, 1, 1) / 2}
        if scaled
        else {"conv.weight": draw(1, layers, 5, 5) / layers**0.5, "conv.bias": draw(1)}
    )
    return pooling | {
        "mlp.layernorm.weight": 1 + draw(hidden),
        "mlp.layernorm.bias": draw(hidden),
        "mlp.projector.0.weight": draw(inner, hidden),
        "mlp.projector.2.weight": draw(context, inner),
        "mlp.fc.1.weight": draw(pooled, context),
        "mlp.fc.1.bias": draw(pooled),
    }


def reference(state: dict[str, torch.Tensor], states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """states [1, layers, tokens, hidden] -> context [1, tokens, context], pooled vector [1, pooled]."""
    if "cha_scale" in state:
        plane = (state["cha_scale"] * states).mean(1)
    else:
        plane = F.conv2d(states, state["conv.weight"], state["conv.bias"], padding=2)[:, 0]
    normed = F.layer_norm(
        plane, plane.shape[-1:], state["mlp.layernorm.weight"], state["mlp.layernorm.bias"], eps=1e-6
    )
    context = F.gelu(normed @ state["mlp.projector.0.weight"].T) @ state["mlp.projector.2.weight"].T
    pooled = F.gelu(context) @ state["mlp.fc.1.weight"].T + state["mlp.fc.1.bias"]
    return context, pooled.mean(1)
