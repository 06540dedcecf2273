"""Where the pack's models lie among ComfyUI's folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ..squeeze_core.errors import SqueezeError

if TYPE_CHECKING:
    from ..squeeze_core.mllm import FoundModel

ADAPTERS = "squeeze"
EVALUATION = "evaluation"
MLLM_FOLDERS = ("LLM", "VLM", "text_encoders")


def register() -> None:
    """Make models/squeeze, LLM, VLM and evaluation known; paths from extra_model_paths stay."""
    for name in (ADAPTERS, "LLM", "VLM", EVALUATION):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
    paths, extensions = folder_paths.folder_names_and_paths[ADAPTERS]
    if not extensions:
        folder_paths.folder_names_and_paths[ADAPTERS] = (paths, {".safetensors"})


def mllm_choices() -> dict[str, Path]:
    """What the loader offers: "LLM/InternVL3-8B-hf" -> its folder. The first root wins for equal names."""
    return {name: found.path for name, found in _mllms(supported=True).items()}


def mllm_path(choice: str) -> Path:
    """The folder of a choice.

    Raises `SqueezeError`: why the folder cannot be read when it is there, else with the download line.
    """
    choices = mllm_choices()
    if choice in choices:
        return choices[choice]
    from ..squeeze_core.mllm.folders import download_line

    unreadable = {name: found.reason for name, found in _mllms(supported=False).items()}
    if choice in unreadable:
        raise SqueezeError(unreadable[choice])
    place = Path(folder_paths.get_folder_paths("LLM")[0]) / "InternVL3-8B-hf"
    there = f"Found: {', '.join(choices)}." if choices else "None that can be read was found."
    reasons = [] if choices else unreadable.values()
    message = (
        f'There is no MLLM "{choice}" under models/{", models/".join(MLLM_FOLDERS)}. {there} '
        f"To get one, run: {download_line(place)} - then refresh the page."
    )
    raise SqueezeError("\n".join([message, *reasons]))


def _mllms(supported: bool) -> dict[str, FoundModel]:
    """Folders that can be loaded, or those that are there and cannot: "LLM/InternVL3-8B-hf" -> what was found."""
    from ..squeeze_core.mllm import find_models

    models: dict[str, FoundModel] = {}
    for name in MLLM_FOLDERS:
        for root in folder_paths.get_folder_paths(name):
            for found in find_models([root]):
                if found.supported == supported:
                    models.setdefault(f"{name}/{found.path.relative_to(root).as_posix()}", found)
    return models


def adapter_choices() -> list[str]:
    """Adapter files under models/squeeze."""
    return [name for name in folder_paths.get_filename_list(ADAPTERS) if name.endswith(".safetensors")]


def adapter_path(choice: str) -> Path:
    """The file of a choice. Raises `SqueezeError` that says where adapters go."""
    path = folder_paths.get_full_path(ADAPTERS, choice)
    if path is None:
        raise SqueezeError(
            f'There is no adapter "{choice}" in models/{ADAPTERS}. Put the .safetensors file of a trained '
            "adapter there and refresh the page; none is published by the paper's authors."
        )
    return Path(path)


def evaluation_choices(role: str) -> dict[str, Path]:
    """Models for a measure ("dino", "clip", "orientation"): "dino-vits16" -> its folder."""
    from ..squeeze_core.vision.registry import candidates

    roots = [Path(root) for root in folder_paths.get_folder_paths(EVALUATION)]
    choices: dict[str, Path] = {}
    for root in roots:
        for folder in candidates(role, [root]):  # type: ignore[arg-type]  # the nodes name only real roles
            choices.setdefault(folder.relative_to(root).as_posix(), folder)
    return choices


def evaluation_path(role: str, choice: str) -> Path:
    """The folder of a choice. Raises `SqueezeError` with the download line when it is not there."""
    from ..squeeze_core.vision.registry import fetch_line

    choices = evaluation_choices(role)
    if choice in choices:
        return choices[choice]
    root = Path(folder_paths.get_folder_paths(EVALUATION)[0])
    raise SqueezeError(
        f'There is no model "{choice}" for {role} in models/{EVALUATION}. '
        f"{fetch_line(role, root)} - then refresh the page."  # type: ignore[arg-type]
    )


def check_evaluation(roles: Iterable[str]) -> None:
    """Raise `SqueezeError` with a download line when there is no model for any of these measures."""
    from ..squeeze_core.vision.registry import fetch_line

    if not any(map(evaluation_choices, roles)):
        root = Path(folder_paths.get_folder_paths(EVALUATION)[0])
        raise SqueezeError(
            f"There is no model in models/{EVALUATION}, so nothing can be measured. CLIP measures identity and "
            f"text. {fetch_line('clip', root)} - then refresh the page."
        )
