"""Nodes that show: which step sees what, and what each layer of the MLLM gave."""

from __future__ import annotations

import math

import torch
from comfy_api.latest import io

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.images import to_tensor
from ..squeeze_core.plots import GateRow, gate_warnings, plot_gate, plot_layers
from . import krea
from .gate import PERCENT_OPTIONS
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
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="For Preview Image.")],
        )

    @classmethod
    def execute(cls, conditioning, sigmas) -> io.NodeOutput:
        if len(sigmas) < 2:
            raise SqueezeError(f"There are {len(sigmas)} sigmas, so no step to show. Raise steps or denoise.")
        rows = [_row(number, *entry) for number, entry in enumerate(conditioning, start=1)]
        warnings = gate_warnings(sigmas, rows)
        if any(name in options for _, options in conditioning for name in PERCENT_OPTIONS):
            warnings.append("A time range in percent is set after the gate and replaces the gate's own.")
        return io.NodeOutput(to_tensor(plot_gate(sigmas, rows, warnings))[None])


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
    return GateRow(
        label=f"entry {number}",
        low=options.get("timestep_end", -math.inf),
        high=options.get("timestep_start", math.inf),
        context_tokens=tokens.shape[1],
        mllm=bool(tokens.any()),
        references=len(options.get("reference_latents") or ()),
    )
