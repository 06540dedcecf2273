"""Where ComfyUI is on this machine, and in which folders it looks for models. Read without importing it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SqueezeError

ENVIRONMENT = "COMFYUI_PATH"
EXTRA_PATHS = "extra_model_paths.yaml"

# Kind of model -> folders below models/, as ComfyUI and this pack register them.
_FOLDERS = {
    "diffusion_models": ("diffusion_models", "unet"),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "loras": ("loras",),
    "LLM": ("LLM",),
    "VLM": ("VLM",),
    "squeeze": ("squeeze",),
}
_LEGACY = {"unet": "diffusion_models", "clip": "text_encoders"}


@dataclass(frozen=True)
class ComfyUI:
    """An installation: its folder, version, folders by kind of model, and sentences about what is odd."""

    folder: Path
    version: str
    folders: dict[str, list[Path]]
    notes: list[str] = field(default_factory=list)


def find(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> ComfyUI | None:
    """The ComfyUI given, else of COMFYUI_PATH, else around this pack, else in the home folder; None if none.

    Raises `SqueezeError` when the one given, or that of COMFYUI_PATH, is no ComfyUI.
    """
    for path, where in ((given, "--comfyui"), (environment.get(ENVIRONMENT), ENVIRONMENT)):
        if path:
            folder = Path(path).expanduser()
            if not _is_comfyui(folder):
                raise SqueezeError(
                    f'"{folder}", given by {where}, is no ComfyUI: main.py and folder_paths.py are not both in '
                    "it. Give the folder that holds them."
                )
            return read(folder)
    pack = Path(__file__).resolve().parents[2]
    candidates = [pack.parent.parent] if pack.parent.name == "custom_nodes" else []
    candidates += [Path.home() / "comfy" / "ComfyUI", Path.home() / "ComfyUI"]
    return next((read(folder) for folder in candidates if _is_comfyui(folder)), None)


def read(folder: Path) -> ComfyUI:
    """Version and model folders, those of extra_model_paths.yaml included."""
    models = folder / "models"
    folders = {kind: [models / name for name in names] for kind, names in _FOLDERS.items()}
    notes: list[str] = []
    extra = folder / EXTRA_PATHS
    if extra.is_file():
        for kind, path in _extra_paths(extra, notes):
            kind = _LEGACY.get(kind, kind)
            if kind in folders and path not in folders[kind]:
                folders[kind].append(path)
    return ComfyUI(folder, _version(folder), folders, notes)


def _is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "folder_paths.py").is_file()


def _version(folder: Path) -> str:
    try:
        text = (folder / "comfyui_version.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return "unknown"
    found = re.search(r"""__version__\s*=\s*["']([^"']+)""", text)
    return found[1] if found else "unknown"


def _extra_paths(file: Path, notes: list[str]) -> list[tuple[str, Path]]:
    """(kind, folder) of every line, by ComfyUI's own rules for base_path."""
    try:
        import yaml
    except ModuleNotFoundError:
        notes.append(f"{file.name} was not read, because the package PyYAML is missing.")
        return []
    try:
        sections = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        paths = []
        for section in sections.values():
            section = dict(section or {})
            base = Path(os.path.expandvars(str(section.pop("base_path", "")))).expanduser()
            section.pop("is_default", None)
            for kind, lines in section.items():
                for line in filter(None, map(str.strip, str(lines).split("\n"))):
                    paths.append((kind, Path(os.path.normpath(file.parent.absolute() / base / line))))
        return paths
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        notes.append(f"{file.name} cannot be read ({type(error).__name__}); ComfyUI will not read it either.")
        return []
