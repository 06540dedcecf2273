"""What strength, region and layout cost, against the same step of the same FLUX with plain attention.

Sizes are those of use: 1024 px, 512 words, four references of 512 px. The FLUX is made up: of the real width and
few blocks on a GPU, narrow on a CPU, where attention weighs more than in the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from ..attention.regions import PixelBox, Region
from ..attention.rules import AttentionRules, ReferenceRule
from ..flux.conditioning import Conditioning
from ..flux.model import velocity
from .measuring import compared, default_device, peak_bytes

SUBJECTS = 4


@dataclass(frozen=True)
class Sizes:
    """side, reference: pixels. words: tokens."""

    side: int = 1024
    reference: int = 512
    words: int = 512


QUICK = Sizes(512, 256, 128)


def references(*, quick: bool = False, sizes: Sizes | None = None) -> dict[str, float]:
    """One step with four references: plain, and with a strength, a hard region, a grey region for each."""
    sizes = sizes or (QUICK if quick else Sizes())
    boxes = _quarters(sizes.side)
    ramp = torch.linspace(0.05, 1, 64).repeat(64, 1)
    rules = {
        "plain": AttentionRules((ReferenceRule(),) * SUBJECTS),
        "strength": AttentionRules((ReferenceRule(strength=1.5),) * SUBJECTS),
        "region": AttentionRules(tuple(ReferenceRule(region=Region((box,))) for box in boxes)),
        "grey_region": AttentionRules((ReferenceRule(region=Region(mask=ramp)),) * SUBJECTS),
    }
    return _measured(rules, sizes, quick)


def layout(*, quick: bool = False, sizes: Sizes | None = None) -> dict[str, float]:
    """One step of four subjects, each with words, a reference and a quarter of the picture: kept apart, and not."""
    sizes = sizes or (QUICK if quick else Sizes())
    subjects = range(1, SUBJECTS + 1)
    rules = {
        "plain": AttentionRules((ReferenceRule(),) * SUBJECTS),
        "layout": AttentionRules(
            tuple(ReferenceRule(number) for number in subjects),
            tuple((number, sizes.words // SUBJECTS) for number in subjects),
            tuple((number, Region((box,))) for number, box in zip(subjects, _quarters(sizes.side))),
        ),
    }
    return _measured(rules, sizes, quick)


def _measured(rules: dict[str, AttentionRules], sizes: Sizes, quick: bool) -> dict[str, float]:
    device = default_device()
    steps = _steps(rules, sizes, device)
    seconds, ratios = compared(steps, "plain", 3 if quick else 5, device)
    peaks = {name: peak_bytes(step, device) for name, step in steps.items()}
    numbers: dict[str, float] = {
        "words": sizes.words,
        "picture_tokens": (sizes.side // 16) ** 2,
        "reference_tokens": SUBJECTS * (sizes.reference // 16) ** 2,
    }
    numbers |= {f"{name}_s": value for name, value in seconds.items()}
    numbers |= {f"{name}_peak_bytes": value for name, value in peaks.items()}
    for name in steps:
        if name != "plain":
            numbers[f"{name}_ratio"] = ratios[name]
            numbers[f"{name}_memory_ratio"] = peaks[name] / peaks["plain"]
    return numbers


def _steps(
    rules: dict[str, AttentionRules], sizes: Sizes, device: torch.device
) -> dict[str, Callable[[], torch.Tensor]]:
    """One prediction under each of the rules."""
    from diffusers import FluxTransformer2DModel

    from ..toyworld.flux import CONFIG

    cuda = device.type == "cuda"
    shape = {"num_attention_heads": 24 if cuda else 2, "num_layers": 2 if cuda else 1, "num_single_layers": 1}
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = FluxTransformer2DModel(**{**CONFIG, **shape}).eval()
    if cuda:
        transformer = transformer.to(torch.bfloat16)
    draw = torch.Generator().manual_seed(0)

    def noise(side: int) -> torch.Tensor:
        return torch.randn(1, 16, side // 8, side // 8, generator=draw).to(device)

    latents = noise(sizes.side)
    context = torch.randn(1, sizes.words, CONFIG["joint_attention_dim"], generator=draw).to(device)
    pooled = torch.zeros(1, 768, device=device)
    given = tuple(noise(sizes.reference) for _ in range(SUBJECTS))
    sigma = torch.tensor(1.0, device=device)
    return {
        name: partial(
            velocity, transformer, latents, sigma, Conditioning(context, pooled, 2.5, given, "uxo", rules=rule)
        )
        for name, rule in rules.items()
    }


def _quarters(side: int) -> list[PixelBox]:
    half = side / 2
    return [PixelBox(x, y, half, half) for y in (0, half) for x in (0, half)]
