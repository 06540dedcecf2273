"""Which models are on the disk, and for each that is missing: what it is for, where it goes, where to get it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from .. import adapter
from ..errors import SqueezeError
from ..files import read_header
from ..mllm import find_models
from .files import FILES

_SUFFIXES = (".safetensors", ".sft", ".gguf")
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8}
_NO_LICENCE = "see the model card"


@dataclass(frozen=True)
class Wanted:
    """A model that users of this pack may have.

    pattern: matched, ignoring case, against the path below its folder, extension left out.
    use: what it is for. get: command that fetches it, run in ComfyUI's folder. licence: a pointer, no advice.
    """

    name: str
    kind: str
    pattern: str
    use: str
    get: str
    licence: str

    @property
    def goes_to(self) -> str:
        return f"models/{self.kind}"


_BFL = "weights non-commercial; accept the terms on the model's page first, and check its model card"
WANTED = (
    Wanted(
        "FLUX.1-dev",
        "diffusion_models",
        r"flux(?!.*(kontext|fill|canny|depth|redux|klein))(?![ ._-]?2)",
        "generation",
        FILES["flux1-dev.safetensors"].get,
        _BFL,
    ),
    Wanted(
        "FLUX.1-Kontext-dev",
        "diffusion_models",
        r"kontext",
        "the gate without an adapter",
        FILES["flux1-dev-kontext_fp8_scaled.safetensors"].get,
        _BFL,
    ),
    Wanted(
        "FLUX.1 VAE",
        "vae",
        r"(^|/)ae$|flux(?!.?2).*vae|vae.*flux(?!.?2)",
        "references and pictures",
        FILES["ae.safetensors"].get,
        "check the model card",
    ),
    Wanted(
        "UNO LoRA",
        "loras",
        r"(?<![a-z])uno(?![a-z])|(^|/)dit_lora$",
        "the gate without an adapter; beside X2I's aligner",
        FILES["dit_lora.safetensors"].get,
        "code Apache-2.0; weights: the model card says CC BY-NC 4.0, check it; made for FLUX.1-dev",
    ),
    Wanted(
        "USO LoRA",
        "loras",
        r"(?<![a-z])uso(?![a-z])",
        "the gate without an adapter",
        "hf download bytedance-research/USO --local-dir models/loras/USO",
        f"{_NO_LICENCE}; made for FLUX.1-dev",
    ),
    Wanted(
        "T5-XXL",
        "text_encoders",
        r"t5.?xxl|t5.?v1.?1.?xxl",
        "the gate without an adapter",
        FILES["t5xxl_fp8_e4m3fn_scaled.safetensors"].get,
        _NO_LICENCE,
    ),
    Wanted(
        "CLIP-L",
        "text_encoders",
        r"clip.?l(?![a-z])|vit-l-14",
        "the gate without an adapter; pooled vector",
        FILES["clip_l.safetensors"].get,
        _NO_LICENCE,
    ),
    *(
        Wanted(name, FILES[file].directory, pattern, f"workflow {workflow}", FILES[file].get, FILES[file].licence)
        for name, file, pattern, workflow in (
            (
                "Qwen-Image-Edit",
                "qwen_image_edit_2511_fp8mixed.safetensors",
                r"qwen.?image.?edit",
                "gate_with_qwen_image_edit",
            ),
            (
                "Qwen2.5-VL for Qwen-Image-Edit",
                "qwen_2.5_vl_7b_fp8_scaled.safetensors",
                r"qwen.?2.?5.?vl.?7b",
                "gate_with_qwen_image_edit",
            ),
            (
                "Qwen-Image VAE",
                "qwen_image_vae.safetensors",
                r"qwen.?image.?vae",
                "gate_with_qwen_image_edit, gate_with_krea2",
            ),
            ("Krea 2", "krea2_turbo_fp8_scaled.safetensors", r"krea.?2(?!.*reference)", "gate_with_krea2"),
            ("Krea 2 LoRA", "krea2_style_reference.safetensors", r"krea.?2.*reference", "gate_with_krea2"),
            ("Qwen3-VL for Krea 2", "qwen3vl_4b_fp8_scaled.safetensors", r"qwen.?3.?vl.?4b", "gate_with_krea2"),
            (
                "FLUX.2 klein",
                "flux-2-klein-4b-fp8.safetensors",
                r"flux.?2.?klein",
                "gate_with_flux2_klein",
            ),
            ("Qwen3 for klein", "qwen_3_4b.safetensors", r"qwen.?3.?4b", "gate_with_flux2_klein"),
            ("FLUX.2 VAE", "flux2-vae.safetensors", r"flux.?2.*vae", "gate_with_flux2_klein"),
        )
    ),
)
MLLM = Wanted(
    "MLLM",
    "LLM",
    "",
    "reading text and pictures",
    "hf download Qwen/Qwen2.5-VL-7B-Instruct --local-dir models/LLM/Qwen2.5-VL-7B-Instruct for X2I's aligner; "
    "hf download OpenGVLab/InternVL3-8B-hf --local-dir models/LLM/InternVL3-8B-hf for an adapter of your own",
    "MIT and the Qwen licence; check the model card of the size you take",
)
ADAPTER = Wanted(
    "Squeeze adapter",
    "squeeze",
    "",
    "the paper's own path",
    "X2I's public aligner is one: hf download OPPOer/X2I qwen2.5-vl-7b_proj.pt, then squeeze convert x2i "
    "qwen2.5-vl-7b_proj.pt --mllm models/LLM/Qwen2.5-VL-7B-Instruct models/squeeze/x2i_qwen2.5-vl-7b.safetensors; "
    "or train your own",
    "X2I's: see its card; your own: yours",
)


@dataclass(frozen=True)
class Found:
    """A model on the disk. detail: dtype, shape, or why it cannot be used (then usable is False)."""

    name: str
    path: Path
    bytes: int
    detail: str = ""
    usable: bool = True


def inventory(folders: Mapping[str, Sequence[Path]]) -> list[tuple[Wanted, list[Found]]]:
    """What is found for each model wanted. folders: as in `ComfyUI.folders`."""
    found = [(wanted, _files(wanted, folders.get(wanted.kind, ()))) for wanted in WANTED]
    mllm_roots = [path for kind in ("LLM", "VLM", "text_encoders") for path in folders.get(kind, ())]
    found.insert(2, (MLLM, _mllms(mllm_roots)))
    found.insert(3, (ADAPTER, _adapters(folders.get(ADAPTER.kind, ()))))
    return found


def main_dtype(path: Path) -> str:
    """The dtype of most of a file's parameters: from a safetensors header, or a GGUF's name; "" if unknown."""
    if path.suffix == ".gguf":
        match = re.search(r"(?<![a-z0-9])(q\d\w*|bf16|f16)(?![a-z0-9])", path.stem.lower())
        return match[1].upper() if match else ""
    try:
        header, _ = read_header(path)
        counts: Counter[str] = Counter()
        for name, entry in header.items():
            if name != "__metadata__":
                counts[entry["dtype"]] += prod(entry["shape"])
        return counts.most_common(1)[0][0] if counts else ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""


def _files(wanted: Wanted, roots: Sequence[Path]) -> list[Found]:
    found: dict[str, Found] = {}
    for root, path in _walk(roots):
        name = path.relative_to(root).as_posix()
        if re.search(wanted.pattern, name.removesuffix(path.suffix), re.IGNORECASE):
            found.setdefault(os.path.realpath(path), _found(name, path))
    return list(found.values())


def _found(name: str, path: Path) -> Found:
    dtype, size = main_dtype(path), _size(path)
    if path.suffix != ".gguf" and not dtype:
        return Found(name, path, size, "unreadable header: fetch the file again", usable=False)
    return Found(name, path, size, dtype)


def _mllms(roots: Sequence[Path]) -> list[Found]:
    return [
        Found(
            model.name,
            model.path,
            model.bytes,
            f"{model.model_type}, {model.layers} layers x {model.hidden}" if model.supported else model.reason,
            model.supported,
        )
        for model in find_models(roots)
    ]


def _adapters(roots: Sequence[Path]) -> list[Found]:
    found = []
    for root, path in _walk(roots):
        if path.suffix != ".safetensors":
            continue
        name = path.relative_to(root).as_posix()
        try:
            found.append(Found(name, path, _size(path), _summary(adapter.read_config(path))))
        except (SqueezeError, OSError) as error:
            found.append(Found(name, path, _size(path), str(error), usable=False))
    return found


def _summary(config: adapter.AdapterConfig) -> str:
    return (
        f"for {config.mllm.name or config.mllm.label} and {config.dit.name or 'a FLUX'} of width "
        f"{config.dit.width}, DLA {config.dla.variant}, LoRA rank {config.lora_rank}, "
        f"{'trained by ' + config.trained_by if config.trained_by else 'untrained'}"
    )


def _walk(roots: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    for root in roots:
        for folder, below, names in os.walk(root, followlinks=True):
            depth = len(Path(folder).relative_to(root).parts)
            below[:] = [name for name in sorted(below) if not name.startswith(".")] if depth < 4 else []
            for name in sorted(names):
                if name.lower().endswith(_SUFFIXES):
                    yield root, Path(folder) / name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
