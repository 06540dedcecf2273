"""Which ComfyUI the tests run on, and why there is none."""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path

COMFYUI = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()


def why_not() -> str | None:
    """Why there is no ComfyUI to test on: nothing there, or this Python lacks what it needs."""
    if not (COMFYUI / "comfy" / "model_management.py").is_file():
        return f"NO COMFYUI at {COMFYUI} (set COMFYUI_PATH)"
    lines = (COMFYUI / "requirements.txt").read_text().partition("#non essential")[0].splitlines()
    names = [match[0] for line in lines if (match := re.match(r"[\w.-]+", line))]
    missing = [name for name in names if not _installed(name)]
    if missing:
        return f"COMFYUI CANNOT RUN in this Python: {', '.join(missing)} of its requirements.txt missing"
    return None


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


WHY_NOT = why_not()
