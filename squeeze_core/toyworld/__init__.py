"""A tiny world of the real architectures: everything runs on a CPU in seconds, and nothing is downloaded.

`build` writes FLUX, VAE, MLLM and adapter to the cache folder; `load` reads them. The weights are untrained.
"""

from .vae import comfy_vae_config, comfy_vae_state
from .world import NOTICE, VERSION, ToyWorld, ToyWorldPaths, build, default_folder, is_complete, load

__all__ = [
    "NOTICE",
    "VERSION",
    "ToyWorld",
    "ToyWorldPaths",
    "build",
    "comfy_vae_config",
    "comfy_vae_state",
    "default_folder",
    "is_complete",
    "load",
]
