"""torch.compile for FLUX's repeated blocks: one kind of block is compiled once and used by all of its kind."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel

# Context and references of a compiled call fill multiples of so many tokens, so that a bucket has few shapes.
MULTIPLE = 512


def no_compiler(device: torch.device) -> str | None:
    """Why nothing can be compiled for the device, in one line; None where it can."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "compile is off: there is no triton, which torch.compile needs on a GPU."
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    if device.type == "cpu" and not any(name and shutil.which(name) for name in compilers):
        return "compile is off: there is no C++ compiler, which torch.compile needs on a CPU. Install g++."
    return None


def compile_blocks(transformer: FluxTransformer2DModel) -> None:
    """diffusers' regional compilation, in place. After the LoRA is in and the processors are set."""
    transformer.compile_repeated_blocks(dynamic=False)
