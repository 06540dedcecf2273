"""Which folders on disk hold an MLLM that this package reads, and what to say when one does not.

Only config.json is read here, never a weight and never transformers: listing a models folder is quick.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import SqueezeError

SUPPORTED = ("internvl", "qwen2_5_vl")
DEFAULT_REPOSITORY = "OpenGVLab/InternVL3-8B-hf"
_KNOWN = (*SUPPORTED, "internvl_chat")
_LEVELS_BELOW = 2

# Width and layers of the language model -> size of InternVL3, for folders whose name does not tell.
_INTERNVL3_SIZES = {
    (896, 24): "1B",
    (1536, 28): "2B",
    (3584, 28): "8B",
    (4096, 48): "9B",
    (5120, 48): "14B",
    (5120, 64): "38B",
    (8192, 80): "78B",
}


@dataclass(frozen=True)
class FoundModel:
    """An MLLM folder as found on disk.

    name: path below the scanned root, with forward slashes.
    hidden, layers: width and transformer layers of the language model, 0 when config.json does not tell.
    bytes: size of its safetensors files. supported: whether `load` can be tried; reason says why not.
    """

    name: str
    path: Path
    model_type: str
    hidden: int
    layers: int
    bytes: int
    supported: bool = True
    reason: str = ""


def find_models(roots: str | Path | Iterable[str | Path]) -> list[FoundModel]:
    """MLLM folders in each root itself and up to two levels below it, sorted by name.

    Folders that cannot be read are passed over. A folder reached by two roots is listed once.
    """
    roots = [roots] if isinstance(roots, (str, Path)) else list(roots)
    found: dict[str, FoundModel] = {}
    for root in map(Path, roots):
        for folder in _folders(root, _LEVELS_BELOW):
            model = _inspect(root, folder)
            if model is not None:
                found.setdefault(os.path.realpath(folder), model)
    return sorted(found.values(), key=lambda model: (model.name.lower(), str(model.path)))


def read_config(folder: Path) -> dict:
    """config.json of a model folder, checked to be of a supported family.

    Raises SqueezeError for a folder that is missing or empty, is no model, is of another family, is in the
    original InternVL layout, or holds quantised weights. Each says what to download, and where to.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise SqueezeError(f"The MLLM folder {folder} {what}. Download one: {download_line(folder)}")
    path = folder / "config.json"
    if not path.is_file():
        raise SqueezeError(f"{folder} holds no config.json. Fetch the model: {download_line(folder)}")
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SqueezeError(
            f"{path} is not readable JSON{lfs_hint(path)}. Fetch the folder again: {download_line(folder)}"
        ) from error
    reason = _unsupported(folder, config)
    if reason:
        raise SqueezeError(reason)
    return config


def download_line(folder: Path, repository: str | None = None) -> str:
    """The command that puts a model of the right kind into `folder`."""
    place = f'"{folder}"' if " " in str(folder) else str(folder)
    return f"hf download {repository or _repository_named(folder) or DEFAULT_REPOSITORY} --local-dir {place}"


def lfs_hint(path: Path) -> str:
    """A few words when the file is a git-lfs pointer instead of the file itself, else nothing."""
    try:
        with path.open("rb") as file:
            pointer = file.read(24).startswith(b"version https://git-lfs")
    except OSError:
        return ""
    return " (it is a git-lfs pointer: the clone was made without git-lfs)" if pointer else ""


def _unsupported(folder: Path, config: dict) -> str:
    """Why a model cannot be loaded, in a sentence or two; empty when it can."""
    model_type = config.get("model_type")
    if model_type == "internvl_chat":
        names = (folder.name, str(config.get("_name_or_path", "")))
        if any(re.search(r"InternVL2[._]5", name) for name in names):
            return (
                f"{folder} is InternVL2.5 in its original layout, which needs remote code. Convert it with "
                "transformers' convert_internvl_weights_to_hf.py, or take a folder in the -hf layout."
            )
        repository = _converted_repository(folder, config)
        beside = folder.with_name(repository.rpartition("/")[2])
        return (
            f"{folder} is in InternVL's original layout, which needs remote code. "
            f"Download the converted repository: {download_line(beside, repository)}"
        )
    if model_type not in SUPPORTED:
        return (
            f"{folder} holds a model of type {model_type!r}; supported are {' and '.join(SUPPORTED)} "
            f"(InternVL3 -hf, Qwen2.5-VL). Download one: hf download {DEFAULT_REPOSITORY}"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        return (
            f"{folder} holds weights quantised by {method!r}; read are plain fp32, bf16 and fp16 weights. "
            "Download the unquantised repository and choose weight_dtype fp8_e4m3fn to save memory."
        )
    return ""


def _repository_named(folder: Path) -> str | None:
    """The repository that a folder of this name is meant to hold."""
    name = folder.name
    if re.fullmatch(r"InternVL3-\d+B-hf|InternVL3_5-\d+B(-A\d+B)?-HF", name):
        return f"OpenGVLab/{name}"
    if re.fullmatch(r"Qwen2\.5-VL-\d+B-Instruct", name):
        return f"Qwen/{name}"
    return None


def _converted_repository(folder: Path, config: dict) -> str:
    """The -hf repository of an original InternVL: told by name, else by size, else the usual one."""
    for name in (folder.name, str(config.get("_name_or_path", ""))):
        if match := re.search(r"InternVL3-(\d+B)", name):
            return f"OpenGVLab/InternVL3-{match[1]}-hf"
        if match := re.search(r"InternVL3_5-(\d+B(?:-A\d+B)?)", name):
            return f"OpenGVLab/InternVL3_5-{match[1]}-HF"
    size = _INTERNVL3_SIZES.get(_sizes(config))
    return f"OpenGVLab/InternVL3-{size}-hf" if size else DEFAULT_REPOSITORY


def _sizes(config: dict) -> tuple[int, int]:
    """(hidden size, layers) of the language model; older Qwen2.5-VL configs are flat."""
    for part in (config.get("text_config"), config.get("llm_config"), config):
        if isinstance(part, dict) and "hidden_size" in part:
            return int(part["hidden_size"] or 0), int(part.get("num_hidden_layers") or 0)
    return 0, 0


def _folders(root: Path, levels: int) -> Iterator[Path]:
    yield root
    if levels == 0:
        return
    try:
        below = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    except OSError:
        return
    for path in below:
        if not Path(path).name.startswith("."):
            yield from _folders(Path(path), levels - 1)


def _inspect(root: Path, folder: Path) -> FoundModel | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") not in _KNOWN:
            return None
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        hidden, layers = _sizes(config)
        reason = _unsupported(folder, config)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if not reason and size == 0:
        reason = f"{folder} holds no safetensors weights. Fetch them: {download_line(folder)}"
    name = folder.name if folder == root else folder.relative_to(root).as_posix()
    return FoundModel(name, folder, config["model_type"], hidden, layers, size, not reason, reason)
