"""The timestep gate on ComfyUI's conditioning: each entry becomes one entry a stage, active in its own sigmas.

`timestep_start` and `timestep_end` are sigmas that the sampler compares with both ends included, so a stage
ends one float32 below the next. Only conditioning is touched: any sampler, LoRA, ControlNet, mask or area that
works with the entry works with its parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.gate import MAX_TAU, Gate, Late
from ..squeeze_core.references import References
from ..squeeze_core.sigmas import at_size
from ..squeeze_core.windows import Part, parts
from .attention import Heard, carried, followed, heard_upstream, looked_at, with_references
from .late_text import NullText, late_text
from .reference_models import check_latents, method_for
from .sockets import CATEGORY, ReferenceLatents

Entry = list[Any]  # [tokens, options], as ComfyUI has it
Window = tuple[float, float]  # (first, last) sigma, both included

AS_GIVEN = "as given"
TAU_FOR: dict[str, int | None] = {AS_GIVEN: None, "512 px": 512, "1024 px": 1024}
PIXELS = {128: 16, 3: 1}  # a side of a latent's element, by channels: FLUX.2 and Mage; HiDream-O1
METHOD = "reference_latents_method"
PERCENT_OPTIONS = ("start_percent", "end_percent", "clip_start_percent", "clip_end_percent")
EVERYWHERE: Window = (-math.inf, math.inf)


class TimestepGate(io.ComfyNode):
    """Equation 5 for any conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeTimestepGate",
            display_name="Timestep Gate",
            category=CATEGORY,
            description="Early steps hear the text side only (layout, meaning), middle steps both, late steps the "
            "reference pictures only (detail). Works with T5 and public UNO, USO or Kontext weights too.",
            search_aliases=[
                "consistency",
                "character",
                "identity",
                "Kontext",
                "subject",
                "timestep range",
                "reference schedule",
                "copy-paste fix",
                "gate",
                "ReferenceLatent timing",
            ],
            inputs=[
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="From Aggregate, or any text encoder. Reference latents already in it "
                    "are gated as well.",
                ),
                io.Float.Input(
                    "tau_1",
                    default=0.95,
                    min=0.0,
                    max=MAX_TAU,
                    step=0.001,
                    round=0.0001,
                    tooltip="References join below this sigma (1 is pure noise). Higher: closer "
                    "identity, fewer new "
                    "poses. Above 1: from the very first step. At least tau_2.",
                ),
                io.Float.Input(
                    "tau_2",
                    default=0.85,
                    min=0.0,
                    max=MAX_TAU,
                    step=0.001,
                    round=0.0001,
                    tooltip="The text side is heard down to this sigma. 0: in all steps. Above 1: in none. "
                    "At most tau_1.",
                ),
                io.Combo.Input(
                    "late",
                    options=list(get_args(Late)),
                    default="keep",
                    tooltip="The text side in late steps. drop: one zero token, as Squeeze adapters "
                    "are trained. zero: "
                    "zeros of the same length. keep: stays; choose it for public weights, never "
                    "trained without text.",
                ),
                io.Float.Input(
                    "guidance",
                    default=-1.0,
                    min=-1.0,
                    max=100.0,
                    step=0.1,
                    tooltip="FLUX's guidance embedding in all stages. -1 leaves what the conditioning says: the "
                    "adapter's own from Aggregate, or that of FluxGuidance.",
                ),
                ReferenceLatents.Input(
                    "references",
                    optional=True,
                    tooltip="From Reference Tokens. Added to those in the conditioning.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Checks that the references fit the model, and turns a time range in percent that the "
                    "conditioning may have into sigmas.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Gated alike, so that references enter and leave both sides together. Connect it "
                    "whenever references are on both sides, as Boogu's, Mage's and HiDream-O1's nodes put them.",
                ),
                io.Conditioning.Input(
                    "null",
                    optional=True,
                    tooltip="The encoding of the empty prompt. It stands in late steps for the text of both sides, "
                    "in place of what late says: models with true CFG know it, and no zero token.",
                ),
                io.Combo.Input(
                    "tau_for",
                    options=list(TAU_FOR),
                    default=AS_GIVEN,
                    optional=True,
                    advanced=True,
                    tooltip="The size of picture that tau_1 and tau_2 belong to. They are shifted from there to "
                    "the size of latent, to levels of noise that are equally uncertain. as given: not shifted.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    advanced=True,
                    tooltip="The sampler's latent. It tells the size of the picture; only tau_for needs it.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="For the sampler's positive."),
                io.Conditioning.Output(
                    display_name="negative", tooltip="For the sampler's negative, when negative is connected."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, tau_1: float | None = None, tau_2: float | None = None) -> bool | str:
        try:
            if tau_1 is not None and tau_2 is not None:
                Gate(tau_1, tau_2)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        conditioning,
        tau_1: float,
        tau_2: float,
        late: Late,
        guidance: float,
        references=None,
        model=None,
        negative=None,
        null=None,
        tau_for: str = AS_GIVEN,
        latent=None,
    ) -> io.NodeOutput:
        to_sigma = None if model is None else model.get_model_object("model_sampling").percent_to_sigma
        tau_1, tau_2 = (for_size(tau, tau_for, latent) for tau in (tau_1, tau_2))
        gate, empty = Gate(tau_1, tau_2, late), NullText.of(null)
        how: dict[str, Any] = {"guidance": guidance, "percent_to_sigma": to_sigma, "null": empty}
        how["model"] = None if model is None else model.model
        if negative is None:
            missing = ExecutionBlocker(
                "The gate's second output is its negative, gated: connect negative to the gate."
            )
            return io.NodeOutput(gated(conditioning, gate, references, **how), missing)
        return io.NodeOutput(*gated_sides(conditioning, negative, gate, references, **how))


def gated(
    conditioning: list[Entry],
    gate: Gate,
    references: References | None = None,
    *,
    guidance: float = -1.0,
    percent_to_sigma: Callable[[float], float] | None = None,
    null: NullText | None = None,
    beside: Sequence[Window] = (),
    model: Any = None,
) -> list[Entry]:
    """Split every entry that has references into its stages; the rest only takes the guidance.

    Without references nothing could take over from the text side, so such an entry stays as it is in all steps.
    guidance: below 0 leaves the entry's own. percent_to_sigma: of the model's sampling, to intersect time
    ranges given in percent. null: stands for the text in late steps. beside: when the references of the other
    side of CFG are heard; the text of an entry without any of its own falls silent with theirs. model: core's
    `BaseModel`, whose latents and method of reference latents are seen to. Raises `SqueezeError` when there is a
    time range in percent and no way to read it, and for latents that the model would misread.
    """
    result: list[Entry] = []
    for tokens, options in conditioning:
        heard, placed = _all_references(options, references)
        options = {**options, **placed}
        if model is not None and heard:
            check_latents(model, [reference.latent for reference in heard])
            method = method_for(model, options.get(METHOD))
            options = options if method is None else {**options, METHOD: method}
        if guidance >= 0:
            options["guidance"] = guidance
        silent = gate.late != "keep" or null is not None
        if not heard and not (beside and silent):
            result.append([tokens, options])
            continue
        window, options = _window(options, percent_to_sigma)
        staged: list[Entry] = []
        for part in parts(gate, [reference.window for reference in heard] or beside):
            first, last = max(part.low, window[0]), min(part.last, window[1])
            if first <= last and last >= 0:  # no sampler goes below 0
                now = [heard[number] for number in part.references] if heard else []
                staged.append(_active(_staged(tokens, options, now, part, gate.late, null), first, last))
        result += followed(staged) if len(staged) != 1 else [looked_at(staged[0])]
    return carried(result)


def for_size(tau: float, tau_for: str, latent: dict[str, Any] | None) -> float:
    """A threshold that belongs to the size `tau_for`, for the picture of a LATENT.

    1 and above stays: it means the first step, or never. Raises `SqueezeError` where no latent tells the size.
    """
    given = TAU_FOR[tau_for]
    if given is None or tau >= 1:
        return tau
    if latent is None:
        raise SqueezeError(
            f'tau_for is "{tau_for}", and nothing says how large the picture is. Connect the sampler\'s latent, or '
            f'set tau_for to "{AS_GIVEN}".'
        )
    samples = latent["samples"]
    pixels = latent.get("downscale_ratio_spacial") or PIXELS.get(samples.shape[1], 8)
    return at_size(tau, samples.shape[-1] * samples.shape[-2] * pixels**2, given**2)


def gated_sides(
    positive: list[Entry], negative: list[Entry], gate: Gate, references: References | None = None, **how: Any
) -> tuple[list[Entry], list[Entry]]:
    """Both sides of CFG under one gate: references enter and leave together, and so does text.

    Those of the socket go to both. how: as for `gated`. Every entry is active in all of its own steps, so each
    side speaks in every stage: core gives zeros for a side that has no active entry.
    """
    for name, side in (("conditioning", positive), ("negative", negative)):
        if not side:
            raise SqueezeError(f"{name} has no entry. Connect a text encoder, or leave it unconnected.")
    beside = [reference.window for _, options in positive for reference in _all_references(options, references)[0]]
    return gated(positive, gate, references, **how), gated(negative, gate, references, beside=beside, **how)


def _all_references(options: dict, references: References | None) -> tuple[list[Heard], dict]:
    """References from upstream and from the socket, and the options that place them."""
    heard = heard_upstream(options)
    if references is None:
        return heard, {}
    if references.attention != "joint":
        raise SqueezeError(
            f'These references ask for "{references.attention}" attention, which this version does not '
            'have. Use "joint".'
        )
    placed = {} if references.placement == "auto" else {METHOD: references.placement}
    return heard + [Heard.of(item) for item in references.items if item.strength > 0], placed


def _staged(
    tokens: torch.Tensor, options: dict, heard: list[Heard], part: Part, late: Late, null: NullText | None
) -> Entry:
    """The entry as one part of the way sees it. Absent tokens are absent, not masked."""
    replaced = not part.text and (null is not None or late == "drop")
    options = with_references(options, heard, words=not replaced)
    if not part.text:
        tokens, options = late_text(late, tokens, options, null)
    return [tokens, options]


def _active(entry: Entry, first: float, last: float) -> Entry:
    tokens, options = entry
    if math.isfinite(last):
        options["timestep_start"] = last
    if math.isfinite(first):
        options["timestep_end"] = first
    return [tokens, options]


def _window(options: dict, percent_to_sigma: Callable[[float], float] | None) -> tuple[Window, dict]:
    """When the entry was active before, in sigmas, and the options without that range."""
    options = dict(options)
    last = options.pop("timestep_start", EVERYWHERE[1])
    first = options.pop("timestep_end", EVERYWHERE[0])
    percent = {name: options.pop(name) for name in PERCENT_OPTIONS if name in options}
    start = max(percent.get("start_percent", 0.0), percent.get("clip_start_percent", 0.0))
    end = min(percent.get("end_percent", 1.0), percent.get("clip_end_percent", 1.0))
    if start <= 0 and end >= 1:  # core would turn even these into sigmas, over the gate's
        return (float(first), float(last)), options
    if percent_to_sigma is None:
        raise SqueezeError(
            f"The conditioning is already limited to {start:.3g} to {end:.3g} of the steps. Connect "
            "the model to the "
            "gate, which turns that into sigmas, or remove the time range before the gate."
        )
    # In percent an end replaces the one in sigmas, as in core; 0 and 1 are open ends.
    if "start_percent" in percent or "clip_start_percent" in percent:
        last = percent_to_sigma(start) if start > 0 else EVERYWHERE[1]
    if "end_percent" in percent or "clip_end_percent" in percent:
        first = percent_to_sigma(end) if end < 1 else EVERYWHERE[0]
    return (float(first), float(last)), options
