"""A tiny world of the real architectures: everything runs on a CPU in seconds, and nothing is downloaded.

`build` writes FLUX, VAE, MLLM and adapter to the cache folder; `load` reads them. Seed 0 takes the trained weights
that the package ships, once every part has them; every other seed is random.
"""

from .scenes import SIDE
from .world import (
    NOTICES,
    SHIPPED,
    VERSION,
    ToyWorld,
    ToyWorldPaths,
    assemble,
    build,
    default_folder,
    is_complete,
    is_trained,
    is_whole,
    load,
)

__all__ = [
    "NOTICES",
    "SHIPPED",
    "SIDE",
    "VERSION",
    "ToyWorld",
    "ToyWorldPaths",
    "assemble",
    "build",
    "default_folder",
    "is_complete",
    "is_trained",
    "is_whole",
    "load",
]
