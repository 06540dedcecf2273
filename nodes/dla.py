"""Nodes of the adapter: load it, aggregate layer states into FLUX's context."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io

from ..squeeze_core import adapter as adapter_file
from ..squeeze_core.adapter import AdapterConfig
from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.flux.conditioning import POOLED_WIDTH, null
from ..squeeze_core.layers import LayerSelection
from ..squeeze_core.mllm.reading import PLAIN
from ..squeeze_core.mllm.states import LayerStates
from . import folders, hosting
from .lora import apply_lora
from .node_text import shown
from .sockets import CATEGORY, DLA, States, Weights

NO_ADAPTER = "(no adapter found)"
_SD3_WIDTH = 2048  # CLIP-L's followed by CLIP-G's


class LoadAdapter(io.ComfyNode):
    """One file -> the LoRA in the model, and the aggregator."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeLoadAdapter",
            display_name="Load Squeeze Adapter",
            category=CATEGORY,
            description="Put a trained adapter's LoRA into FLUX and load its aggregator. The file "
            "says which MLLM and "
            "which diffusion model it belongs to; anything else is refused.",
            search_aliases=["DLA", "squeeze LoRA", "subject adapter"],
            inputs=[
                io.Model.Input("model", tooltip="FLUX.1-dev in any form that takes LoRAs: bf16, fp8, GGUF."),
                io.Combo.Input(
                    "adapter",
                    options=folders.adapter_choices() or [NO_ADAPTER],
                    tooltip="A .safetensors file in models/squeeze.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Of the LoRA. 1 is what was trained; 0 leaves the model as it is. Without effect where "
                    "the adapter has none, as X2I's aligners.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="With the LoRA."),
                DLA.Output(display_name="dla", tooltip="For Aggregate."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, adapter: str | None = None) -> bool | str:
        try:
            if adapter is not None:  # connected to another node: known only when it runs
                adapter_file.read_config(folders.adapter_path(adapter)).check_attention()
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None = None, **kwargs) -> tuple[int, int] | None:
        if adapter is None:
            return None
        status = folders.adapter_path(adapter).stat()
        return status.st_mtime_ns, status.st_size

    @classmethod
    def execute(cls, model, adapter: str, strength: float) -> io.NodeOutput:
        loaded = adapter_file.load(folders.adapter_path(adapter))
        patched = apply_lora(model, loaded, strength)
        text = shown(_recommended(loaded.config), cls)
        return io.NodeOutput(patched, hosting.HostedDLA.from_adapter(loaded), ui=text)


class Aggregate(io.ComfyNode):
    """Layer states -> conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        selection = (
            'Layers left standing; the others are zeroed (Table A of the paper). "all", "none", or ranges such as '
            '"0-9,20-28"; 0 is the embedding.'
        )
        return io.Schema(
            node_id="SqueezeAggregate",
            display_name="Aggregate Layers",
            category=CATEGORY,
            description="The Dual Layer Aggregator pools all layers, text and image tokens apart; the result takes "
            "the place of T5.",
            search_aliases=["DLA", "dual layer aggregator", "layerwise attention pooling"],
            inputs=[
                States.Input("states", tooltip="From Encode Text and Pictures."),
                DLA.Input("dla", tooltip="From Load Squeeze Adapter or Toy World."),
                io.String.Input("text_layers", default="all", tooltip=f"For text tokens. {selection}"),
                io.String.Input("image_layers", default="all", tooltip=f"For image tokens. {selection}"),
                io.Conditioning.Input(
                    "clip_l",
                    optional=True,
                    tooltip="Only for adapters trained with CLIP-L's pooled vector: a CLIP Text "
                    "Encode of the prompt. "
                    "Its pooled vector is taken, its tokens are not. X2I's aligners make their own.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="For the Timestep Gate or the sampler."),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The null context that was trained as neither text nor pictures. Needs no gate.",
                ),
                Weights.Output(display_name="weights", tooltip="For Show Layers."),
            ],
        )

    @classmethod
    def validate_inputs(cls, text_layers: str | None = None, image_layers: str | None = None) -> bool | str:
        for text in (text_layers, image_layers):
            try:
                if text is not None:  # connected to another node: known only when it runs
                    LayerSelection.parse(text)
            except ValueError as error:
                return str(error)  # ComfyUI says it at both; the text that is wrong is quoted
        return True

    @classmethod
    def execute(cls, states, dla, text_layers: str, image_layers: str, clip_l=None) -> io.NodeOutput:
        given = _pooled(clip_l, dla.config.pooled)
        _warn_of_another_reading(states, dla.config)
        context, weights = dla.aggregate(
            states,
            text_layers=LayerSelection.parse(text_layers),
            image_layers=LayerSelection.parse(image_layers),
        )
        pooled = (dla.pooled_vector(context) if given is None else given).to(context)
        shared = {"guidance": dla.config.guidance}
        positive = {**shared, "pooled_output": pooled, "reference_latents_method": dla.config.placement}
        tokens, vector = null(context[None], pooled)
        negative = {**shared, "pooled_output": vector}
        return io.NodeOutput([[context[None], positive]], [[tokens, negative]], weights)


def _recommended(config: AdapterConfig) -> str:
    """What the other nodes should be set to, a line each."""
    gate = config.gate
    lines = [
        f"gate: tau_1 {gate.tau_1}, tau_2 {gate.tau_2}, late {gate.late}",
        f"guidance: {config.guidance}",
        f"tiles: {config.tiles}",
        f"system_prompt: {config.system_prompt}" if config.system_prompt else "",
        "connect dla to for_adapter of Encode Text and Pictures" if config.reading != PLAIN else "",
        f"pooled: {config.pooled}",
        f"trained by: {config.trained_by}" if config.trained_by else "untrained",
    ]
    return "\n".join(filter(None, lines))


def _warn_of_another_reading(states: LayerStates, config: AdapterConfig) -> None:
    """Say in the log when the MLLM was asked otherwise than in training. It may be meant, so it is not refused."""
    if found := config.asked_otherwise(states):
        logging.warning("Squeeze: %s. Connect dla to for_adapter of Encode Text and Pictures.", "; ".join(found))


def _pooled(clip_l, trained_with: str) -> torch.Tensor | None:
    """[1, 768]; None where the aligner makes its own."""
    if clip_l is None:
        if trained_with == "aligner":
            return None
        if trained_with == "clip_l":
            raise SqueezeError(
                "This adapter was trained with CLIP-L's pooled vector and none is connected. Connect a CLIP Text "
                "Encode of the same prompt to clip_l."
            )
        return torch.zeros(1, POOLED_WIDTH)
    if trained_with == "aligner":
        raise SqueezeError("This adapter makes its own pooled vector. Disconnect clip_l.")
    if trained_with == "zeros":
        raise SqueezeError("This adapter was trained with a pooled vector of zeros. Disconnect clip_l.")
    pooled = clip_l[0][1].get("pooled_output")
    if pooled is None:
        raise SqueezeError("The conditioning at clip_l has no pooled vector. Use a CLIP Text Encode with CLIP-L.")
    if pooled.shape[-1] not in (POOLED_WIDTH, _SD3_WIDTH):
        raise SqueezeError(
            f"This CLIP gives pooled vectors of {pooled.shape[-1]} and FLUX takes {POOLED_WIDTH}. Connect a CLIP "
            "Text Encode with CLIP-L."
        )
    return pooled[:, :POOLED_WIDTH]
