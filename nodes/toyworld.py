"""The toy world as one node: try every other node on a CPU, without a download."""

from __future__ import annotations

import comfy.sd
import comfy.utils
from comfy_api.latest import io

from ..squeeze_core import adapter as adapter_file
from . import hosting
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
            "seconds, no download. Its weights are untrained: expect noise-like pictures.",
            search_aliases=["demo models", "tiny FLUX", "test models"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The tiny FLUX with the adapter's LoRA."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE, 16 channels."),
                MLLM.Output(display_name="mllm", tooltip="A tiny InternVL; 64 tokens a picture."),
                DLA.Output(display_name="dla", tooltip="The aggregator that belongs to them."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from ..squeeze_core.toyworld import build, vae

        paths = build()
        adapter = adapter_file.load(paths.adapter)
        model = comfy.sd.load_diffusion_model(str(paths.flux_file))
        state = vae.comfy_vae_state(comfy.utils.load_torch_file(str(paths.vae_file)))
        decoder = comfy.sd.VAE(sd=state, config=vae.comfy_vae_config())
        decoder.latent_channels = vae.CONFIG["latent_channels"]
        return io.NodeOutput(
            apply_lora(model, adapter, 1.0),
            decoder,
            hosting.load_mllm(paths.mllm),
            hosting.HostedDLA.from_adapter(adapter),
        )
