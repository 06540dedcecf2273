"""What the pack adds to the start of ComfyUI, which has torch, pydantic and the like loaded already."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from ..errors import SqueezeError

# What the nodes import while ComfyUI registers them. The nodes themselves need a running ComfyUI.
MODULES = ("gate", "adapter", "layers", "sigmas", "references", "plots", "mllm", "toyworld")
HEAVY = ("transformers", "diffusers", "peft", "accelerate", "matplotlib", "pandas", "typer")

_PROGRAM = """
import importlib, json, sys, time
import einops, numpy, PIL.Image, PIL.ImageDraw, pydantic, safetensors.torch, torch
sys.path.insert(0, sys.argv[1])
start = time.perf_counter()
for name in sys.argv[2].split(","):
    importlib.import_module(name)
added = time.perf_counter() - start
print(json.dumps({"added": added, "heavy": [name for name in sys.argv[3].split(",") if name in sys.modules]}))
"""


def measure(*, quick: bool = False) -> dict[str, float]:
    """added_s: median seconds that our imports add, each time in a new process.

    heavy_modules: how many of `HEAVY` were loaded by it; they are for the first use.
    """
    package = __package__.rpartition(".")[0]
    root = Path(__file__).resolve().parents[package.count(".") + 2]
    names = ",".join(f"{package}.{name}" for name in MODULES)
    runs = []
    for _ in range(2 if quick else 5):
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(root), names, ",".join(HEAVY)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise SqueezeError(f"Importing in a process of its own failed: {done.stderr.strip()[-500:]}")
        runs.append(json.loads(done.stdout))
    return {
        "added_s": median(run["added"] for run in runs),
        "heavy_modules": max(len(run["heavy"]) for run in runs),
    }
