"""All parts of the bench in one report, with what was promised beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Literal, get_args

from ..errors import SqueezeError
from .measuring import default_device, hardware

Part = Literal["encode", "dla", "gate", "references", "layout", "import"]
PARTS: tuple[Part, ...] = get_args(Part)
# Part -> (module, function).
_FUNCTIONS: dict[Part, tuple[str, str]] = {
    "encode": ("encode", "measure"),
    "dla": ("dla", "measure"),
    "gate": ("gate", "measure"),
    "references": ("attention", "references"),
    "layout": ("attention", "layout"),
    "import": ("importing", "measure"),
}

# At most these. A step that hears what a plain one hears costs what a plain one costs; 5% is left for noise.
LIMITS: dict[Part, dict[str, float]] = {
    "encode": {
        "default_ratio": 1.1,
        "fp8_e4m3fn_ratio": 1.1,
        "same_runs": 0,
        "gate_runs": 0,
        "seed_runs": 0,
        "sigma_runs": 0,
        "guidance_runs": 0,
        "layers_runs": 0,
    },
    "dla": {"time_ratio": 0.65, "folded_value_rows": 1, "relative_difference": 1e-5},
    "gate": {"no_references_ratio": 1.05, "early_ratio": 1.05},
    "references": {"strength_ratio": 1.1, "region_ratio": 1.0},
    "layout": {"layout_ratio": 1.0, "layout_memory_ratio": 1.05},
    "import": {"added_s": 0.5, "heavy_modules": 0},
}

MEANINGS: dict[str, str] = {
    "default_ratio": "peak memory of loading an MLLM / its weights",
    "fp8_e4m3fn_ratio": "the same, cast to fp8 while loading",
    "first_runs": "layers run for the first picture (MLLM, VAE encoder)",
    "same_runs": "layers run again for the same prompt",
    "gate_runs": "... with another gate",
    "seed_runs": "... another seed",
    "sigma_runs": "... other sigmas",
    "guidance_runs": "... another guidance",
    "layers_runs": "... another layer selection",
    "again_ratio": "time of encoding again / the first time",
    "time_ratio": "time of the folded LAP / the plain one",
    "memory_ratio": "peak memory of the folded LAP / the plain one",
    "folded_value_rows": "value vectors a token, folded",
    "plain_value_rows": "value vectors a token, plain",
    "relative_difference": "difference of the results, relative",
    "no_references_ratio": "gated step without references / plain FLUX step",
    "early_ratio": "early step (MLLM only) / plain",
    "middle_ratio": "middle step (MLLM and two references) / plain",
    "late_drop_ratio": "late step (two references, one zero token) / plain",
    "late_zero_ratio": "late step with zeros of the same length / plain",
    "strength_ratio": "step with four references of a strength / plain attention",
    "strength_memory_ratio": "its peak memory / plain",
    "region_ratio": "... of a hard region each / plain",
    "region_memory_ratio": "its peak memory / plain",
    "grey_region_ratio": "... of a grey region each / plain",
    "grey_region_memory_ratio": "its peak memory / plain",
    "layout_ratio": "step of four subjects, kept apart / not",
    "layout_memory_ratio": "its peak memory / without layout",
    "added_s": "seconds that imports add to a host's start",
    "heavy_modules": "heavy libraries imported with them",
}


@dataclass(frozen=True)
class Report:
    """Numbers of each part by name, and what they were measured on."""

    hardware: dict[str, str | int]
    parts: dict[str, dict[str, float]] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str, float, float | None]]:
        """(part, meaning, value, limit or None) of everything that has a meaning of its own."""
        return [
            (part, MEANINGS[name], value, LIMITS[part].get(name))  # type: ignore[index]
            for part, numbers in self.parts.items()
            for name, value in numbers.items()
            if name in MEANINGS
        ]

    def as_dict(self) -> dict:
        return asdict(self) | {"limits": {part: LIMITS[part] for part in self.parts}}  # type: ignore[index]


def run(parts: Sequence[str], *, quick: bool = False, started: Callable[[str], None] = lambda part: None) -> Report:
    """Measure the parts, in the order of `PARTS`. Raises `SqueezeError` for an unknown one.

    started: called with the name of each part before it begins.
    """
    for part in parts:
        if part not in PARTS:
            raise SqueezeError(f'There is no part "{part}" to measure; choose from {", ".join(PARTS)}.')
    report = Report(hardware(default_device()))
    for part in PARTS:
        if not parts or part in parts:
            started(part)
            module, function = _FUNCTIONS[part]
            report.parts[part] = getattr(import_module(f".{module}", __package__), function)(quick=quick)
    return report
