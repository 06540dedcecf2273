"""Squeeze: a custom-node pack for ComfyUI. The nodes are in `nodes/`, the method in `squeeze_core/`."""

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint():
    from .nodes import SqueezeExtension

    return SqueezeExtension()
