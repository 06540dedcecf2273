"""The toy world as one node: try every other node on a CPU, without a download."""

from __future__ import annotations

import comfy.sd
from comfy_api.latest import io

from ..squeeze_core import adapter as adapter_file
from ..squeeze_core.images import to_tensor
from . import hosting, toy_vae
from .lora import apply_lora
from .sockets import CATEGORY, DLA, MLLM


class ToyWorldNode(io.ComfyNode):
    """Tiny models of the real architectures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SqueezeToyWorld",
            display_name="Toy World",
            category=CATEGORY,
            description="A tiny FLUX, VAE, InternVL and adapter of the real architectures: runs on a CPU in "
            "seconds, no download. It has seen toys only: give it its own pictures and words.",
            search_aliases=["demo models", "tiny FLUX", "test models"],
            inputs=[
                io.Int.Input(
                    "toy",
                    default=0,
                    min=0,
                    max=9999,
                    optional=True,
                    tooltip="Which toy is on the picture.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The tiny FLUX with the adapter's LoRA."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE, 16 channels."),
                MLLM.Output(display_name="mllm", tooltip="A tiny InternVL; 16 tokens a picture."),
                DLA.Output(display_name="dla", tooltip="The aggregator that belongs to them."),
                io.Image.Output(display_name="picture", tooltip="A picture of the toy, 128 x 128 px."),
            ],
        )

    @classmethod
    def execute(cls, toy: int = 0) -> io.NodeOutput:
        from ..squeeze_core.toyworld import build
        from ..squeeze_core.toyworld.examples import unseen_pairs

        paths = build()
        adapter = adapter_file.load(paths.adapter)
        model = comfy.sd.load_diffusion_model(str(paths.flux_file))
        return io.NodeOutput(
            apply_lora(model, adapter, 1.0),
            toy_vae.load(paths.vae_file),
            hosting.load_mllm(paths.mllm),
            hosting.HostedDLA.from_adapter(adapter),
            to_tensor(unseen_pairs()[toy].references[0])[None],
        )
