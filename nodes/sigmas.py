"""The paper's noise schedule as ComfyUI's SIGMAS."""

from __future__ import annotations

import math

from comfy_api.latest import io

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.sigmas import CURVES, sigmas
from .sockets import CATEGORY


class Sigmas(io.ComfyNode):
    """Cosine curves and the model's own shift."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeSigmas",
            display_name="Squeeze Sigmas",
            category=CATEGORY,
            description="Noise levels for SamplerCustom and SamplerCustomAdvanced. The cosine curves "
            "spend more steps "
            "where the gate's early and middle stages are.",
            search_aliases=["cosine schedule", "scheduler", "sigmas", "FLUX shift"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A flow-matching model such as FLUX. Its shift serves the flux curve."
                ),
                io.Int.Input(
                    "steps", default=28, min=1, max=10000, tooltip="Sampling steps; the paper's curve at 28."
                ),
                io.Combo.Input(
                    "curve",
                    options=list(CURVES),
                    default="cosine",
                    tooltip="cosine: cos(pi i / 2N). raised_cosine: (1 + cos(pi i / N)) / 2. flux: linear with the "
                    "model's shift, as the simple scheduler. linear: unshifted. Steps before 0.95, "
                    "before 0.85, after, "
                    "at 28 steps: 6/4/18, 5/3/20, 4/7/17, 2/3/23.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 for image to image: only the last part of the schedule. Below "
                    "tau_2 nothing of it "
                    "hears the text.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustomAdvanced and Show Gate.")],
        )

    @classmethod
    def execute(cls, model, steps: int, curve: str, denoise: float) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        return io.NodeOutput(sigmas(curve, steps, denoise=denoise, mu=_mu(sampling)))


def _mu(sampling) -> float:
    """Log of the shift of a flow-matching model's sampling."""
    import comfy.model_sampling

    if not isinstance(sampling, comfy.model_sampling.CONST) or float(sampling.sigma_max) > 1.0001:
        raise SqueezeError(
            f"This model samples by {type(sampling).__mro__[1].__name__}, not by flow matching, so "
            "sigmas from 1 to 0 "
            "do not fit it. Use FLUX or another flow-matching model, or ComfyUI's own schedulers."
        )
    shift = getattr(sampling, "shift", 1.15)
    return shift if isinstance(sampling, comfy.model_sampling.ModelSamplingFlux) else math.log(max(shift, 1e-6))
