"""What a gated step costs against a plain FLUX step: absent tokens are absent, not masked."""

from __future__ import annotations

import torch

from ..flux.model import spec_of
from ..flux.tokens import positions, to_tokens
from ..gate import Gate, Stage
from ..pipeline import SqueezePipeline
from ..references import References
from .measuring import compared, default_device

CONTEXT_TOKENS = 512

# Gates under which every step belongs to one stage.
_ALWAYS = {Stage.EARLY: (0.0, 0.0), Stage.MIDDLE: (1.1, 0.0), Stage.LATE: (1.1, 1.1)}


def measure(*, quick: bool = False, size: int | None = None, reference_size: int | None = None) -> dict[str, float]:
    """Seconds of one step (medians), and ratios to a plain step of the same FLUX with the same context.

    The FLUX is made up: width 768 on a CPU, the real width on a GPU, few blocks. The plain step is diffusers'
    own model called directly; all others go through `SqueezePipeline.sample`. size, reference_size: pixels a
    side of the picture, and of each of two references.
    """
    device = default_device()
    cuda = device.type == "cuda"
    size = size or (1024 if cuda else 256 if quick else 384)
    reference_size = reference_size or (320 if cuda or not quick else 160)
    pipeline = _pipeline(device, heads=24 if cuda else 6)
    dtype = pipeline.transformer.dtype
    generator = torch.Generator().manual_seed(0)

    def noise(side: int) -> torch.Tensor:
        return torch.randn(1, 16, side // 8, side // 8, generator=generator)

    context = torch.randn(1, CONTEXT_TOKENS, pipeline.config.dit.context, generator=generator).to(device, dtype)
    pooled = torch.zeros(1, 768, device=device, dtype=dtype)
    target = noise(size).to(device)
    none = References.of((), "uxo")
    two = References.of((noise(reference_size), noise(reference_size)), "uxo")
    one_step = torch.tensor([1.0, 0.0])

    def plain() -> None:
        side = size // 16
        pipeline.transformer(
            hidden_states=to_tokens(target).to(dtype),
            encoder_hidden_states=context,
            pooled_projections=pooled,
            timestep=torch.ones(1, device=device),
            img_ids=positions((side, side), [], "uxo").to(device),
            txt_ids=torch.zeros(CONTEXT_TOKENS, 3, device=device),
            guidance=torch.full((1,), 2.5, device=device),
        )

    def gated(gate: Gate, references: References):
        return lambda: pipeline.sample(context, pooled, references, target, one_step, gate=gate)

    runs = {
        "plain": plain,
        "no_references": gated(Gate(), none),
        "early": gated(Gate(*_ALWAYS[Stage.EARLY]), two),
        "middle": gated(Gate(*_ALWAYS[Stage.MIDDLE]), two),
        "late_drop": gated(Gate(*_ALWAYS[Stage.LATE], late="drop"), two),
        "late_zero": gated(Gate(*_ALWAYS[Stage.LATE], late="zero"), two),
    }
    seconds, ratios = compared(runs, "plain", 3 if quick else 5, device)
    numbers: dict[str, float] = {
        "width": pipeline.config.dit.width,
        "context_tokens": CONTEXT_TOKENS,
        "picture_tokens": (size // 16) ** 2,
        "reference_tokens": 2 * (reference_size // 16) ** 2,
    }
    numbers |= {f"{name}_s": value for name, value in seconds.items()}
    numbers |= {f"{name}_ratio": value for name, value in ratios.items() if name != "plain"}
    return numbers


def _pipeline(device: torch.device, heads: int) -> SqueezePipeline:
    """A made-up FLUX of that many heads of 128, beside the toy world's other models."""
    from diffusers import FluxTransformer2DModel

    from .. import toyworld
    from ..toyworld.flux import CONFIG

    toy = toyworld.load()
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = FluxTransformer2DModel(
            **{**CONFIG, "num_attention_heads": heads, "num_layers": 2, "num_single_layers": 4}
        )
    if device.type == "cuda":
        transformer = transformer.to(torch.bfloat16)
    config = toy.adapter.config.model_copy(update={"dit": spec_of(transformer)})
    return SqueezePipeline(transformer.eval(), toy.vae, toy.mllm, toy.adapter.aggregator, config, device=device)
