"""Nodes that show: which step sees what, and what each layer of the MLLM gave."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.gate_rows import GateRow, gate_warnings, side_warnings
from ..squeeze_core.images import to_tensor
from ..squeeze_core.plots import plot_gate, plot_layers
from . import krea
from .gate import PERCENT_OPTIONS
from .late_text import IDS, IDS_AFTER, IDS_BEFORE, NULL
from .sockets import CATEGORY, Weights


class ShowGate(io.ComfyNode):
    """A gated conditioning and sigmas -> a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeShowGate",
            display_name="Show Gate",
            category=CATEGORY,
            description="Draw which sampling step hears the text side and which sees the references.",
            search_aliases=["gate plot", "timestep plot", "which step"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="From the Timestep Gate."),
                io.Sigmas.Input("sigmas", tooltip="Those of the sampler: Squeeze Sigmas or any scheduler."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="The gate's negative, or any. Drawn below the positive."
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="For Preview Image.")],
        )

    @classmethod
    def execute(cls, conditioning, sigmas, negative=None) -> io.NodeOutput:
        if len(sigmas) < 2:
            raise SqueezeError(f"There are {len(sigmas)} sigmas, so no step to show. Raise steps or denoise.")
        sides = [conditioning] if negative is None else [conditioning, negative]
        rows = [[_row(number, *entry) for number, entry in enumerate(side, start=1)] for side in sides]
        warnings = [gate_warnings(sigmas, side) for side in rows]
        for side, found in zip(sides, warnings):
            if any(name in options for _, options in side for name in PERCENT_OPTIONS):
                found.append("A time range in percent is set after the gate and replaces the gate's own.")
        if negative is None:
            return io.NodeOutput(to_tensor(plot_gate(sigmas, rows[0], warnings[0]))[None])
        warnings[1] += side_warnings(sigmas, *rows)
        drawn = [
            to_tensor(plot_gate(sigmas, side, found, title=f"Which step sees what: {name}"))
            for name, side, found in zip(("positive", "negative"), rows, warnings)
        ]
        return io.NodeOutput(torch.cat(drawn)[None])


class ShowLayers(io.ComfyNode):
    """Pooled layer weights -> a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeShowLayers",
            display_name="Show Layers",
            category=CATEGORY,
            description="Draw how much each layer of the MLLM gives to the text and to the image tokens of this "
            "prompt (Figure 3b of the paper).",
            search_aliases=["layer importance", "layer weights", "attention map"],
            inputs=[
                Weights.Input("weights", optional=True, tooltip="From Aggregate."),
                io.Model.Input("model", optional=True, tooltip="Krea 2, instead of weights."),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="With model: Krea 2's. From Select Layers with its clip, picture tokens show apart.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="For Preview Image.")],
        )

    @classmethod
    def execute(cls, weights=None, model=None, conditioning=None) -> io.NodeOutput:
        if weights is None:
            if model is None or conditioning is None:
                raise SqueezeError(
                    "Nothing to show: connect weights from Aggregate, or Krea 2's model and conditioning."
                )
            weights = krea.weights_of(model, conditioning)
        return io.NodeOutput(to_tensor(plot_layers(weights))[None])


def _row(number: int, tokens: torch.Tensor, options: dict) -> GateRow:
    count, speaks = tokens.shape[1], bool(tokens.any())
    if IDS in options:  # HiDream-O1 keeps its words apart from the tokens
        count = options[IDS].shape[-1] - IDS_BEFORE - IDS_AFTER
        speaks = count > 0
    empty = NULL in options
    return GateRow(
        label=f"entry {number}" + (", the empty prompt" if empty else ""),
        low=options.get("timestep_end", -math.inf),
        high=options.get("timestep_start", math.inf),
        context_tokens=0 if empty else count,
        mllm=speaks and not empty,
        references=len(options.get("reference_latents") or ()),
    )
