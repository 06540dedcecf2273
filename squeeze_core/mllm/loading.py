"""A folder on disk -> a frozen MLLM, with no more memory than its weights.

The model is built without weights and takes them tensor by tensor from the files. Nothing is downloaded and
no code of the folder is run.
"""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import SqueezeError
from .backbone import Backbone, MLLMIdentity
from .family import TransformersBackbone
from .folders import download_line, read_config
from .fp8 import cast_as_used
from .internvl import InternVL
from .qwen_vl import QwenVL
from .weights import StoredTensor, WeightReader, float32_hash, stored_tensors

WeightDtype = Literal["default", "fp32", "bf16", "fp16", "fp8_e4m3fn"]

_FAMILIES: dict[str, type[TransformersBackbone]] = {each.model_type: each for each in (InternVL, QwenVL)}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_EMBEDDING = "model.language_model.embed_tokens.weight"
_FINAL_NORM = "model.language_model.norm.weight"
_HEAD = "lm_head.weight"
# Constants that some checkpoints carry and every version of the model computes for itself.
_COMPUTED = re.compile(r"(rotary_emb|rotary_pos_emb)\.inv_freq$|\.position_ids$")
_OLDEST_TRANSFORMERS = (4, 52)
_FROM_FOLDER: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def load(
    folder: str | Path,
    weight_dtype: WeightDtype = "default",
    device: torch.device | str = "cpu",
) -> Backbone:
    """Open an MLLM folder (InternVL3 -hf or Qwen2.5-VL).

    weight_dtype: "default" keeps what the file holds, mapped; "fp8_e4m3fn" stores the linear weights of the
        language model's layers in 8 bits and casts them as they are used, everything else stays.
    device: where the weights go. On the CPU, kept tensors share memory with the file.

    Warns in the log when it would compute in fp16. Raises SqueezeError for a folder that is missing, incomplete or
    not supported (with the command that fetches a good one), and for a transformers or torchvision that is too old
    or broken.
    """
    opened = _opened(folder, weight_dtype)
    tokenizer, image_processor = _read_processors(opened)
    model, can_generate = _build(opened, weight_dtype, device)
    if _DTYPES.get(weight_dtype, opened.stored[_EMBEDDING].dtype) == torch.float16:
        logging.warning(
            "Squeeze: the MLLM in %s computes in fp16, in which activations of InternVL and Qwen may overflow: "
            "they are bf16 models. Load it with weight_dtype bf16.",
            opened.path,
        )
    return opened.family(model, tokenizer, image_processor, _identity(opened), can_generate)


def identify(folder: str | Path) -> MLLMIdentity:
    """Which MLLM a folder holds, from its config and its final norm alone. Raises `SqueezeError`, as `load`."""
    return _identity(_opened(folder, "default"))


def _identity(opened: _Folder) -> MLLMIdentity:
    if _FINAL_NORM not in opened.stored:
        raise SqueezeError(
            f"{opened.path} lacks {_FINAL_NORM}. Fetch the folder again: {download_line(opened.path)}"
        )
    return MLLMIdentity(
        model_type=opened.family.model_type,
        hidden_size=opened.config.text_config.hidden_size,
        layers=opened.config.text_config.num_hidden_layers,
        final_norm_hash=float32_hash(opened.stored[_FINAL_NORM]),
    )


def load_model(
    folder: str | Path,
    weight_dtype: WeightDtype = "default",
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The weights alone, as `load` opens them: for a folder without tokenizer, and for measuring."""
    return _build(_opened(folder, weight_dtype), weight_dtype, device)[0]


def require_transformers() -> None:
    """Raises SqueezeError unless transformers is new enough for both families and torchvision works."""
    try:
        import transformers
    except Exception as error:
        raise SqueezeError(
            f"transformers cannot be imported ({error}). Run: pip install -U transformers"
        ) from error
    version = tuple(int(part) for part in re.findall(r"\d+", transformers.__version__)[:2])
    if version < _OLDEST_TRANSFORMERS:
        raise SqueezeError(
            f"transformers {transformers.__version__} is too old: InternVL3 needs 4.52 or newer. "
            "Run: pip install -U transformers"
        )
    try:
        import torchvision.transforms.v2  # noqa: F401
    except Exception as error:  # a torchvision of another torch raises RuntimeError, not ImportError
        raise SqueezeError(
            f"torchvision cannot be imported ({error}), and pictures are read with it. "
            f"Install the one that fits torch {torch.__version__}."
        ) from error


@dataclass(frozen=True)
class _Folder:
    """A model folder of which everything but the weights themselves was read and checked.

    settings: config.json as it stands; config: as transformers reads it.
    """

    path: Path
    settings: dict
    family: type[TransformersBackbone]
    stored: dict[str, StoredTensor]
    config: Any


def _opened(path: str | Path, weight_dtype: WeightDtype) -> _Folder:
    if weight_dtype not in get_args(WeightDtype):
        accepted = ", ".join(get_args(WeightDtype))
        raise SqueezeError(f"weight_dtype is {weight_dtype!r}; accepted are {accepted}.")
    path = Path(path).expanduser()
    settings = read_config(path)
    family = _FAMILIES[settings["model_type"]]
    stored = _renamed(stored_tensors(path), family)
    require_transformers()
    import transformers

    with _unreadable(path, "config.json"):
        config = transformers.AutoConfig.from_pretrained(path, **_FROM_FOLDER)
    return _Folder(path, settings, family, stored, config)


def _read_processors(folder: _Folder) -> tuple[Any, Any]:
    """Tokenizer and image processor, from the folder's files alone."""
    import transformers

    # Before 5.0 the plain name is a slower processor whose pixels differ a little.
    suffix = "Fast" if int(transformers.__version__.split(".")[0]) < 5 else ""
    processor_class = getattr(transformers, folder.family.image_processor_class + suffix)
    with _unreadable(folder.path, "tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path, **_FROM_FOLDER)
    folder.family.check_tokenizer(folder.path, tokenizer, folder.config)
    with _unreadable(folder.path, "image processor"):
        image_processor = processor_class.from_pretrained(folder.path, local_files_only=True)
    return tokenizer, image_processor


@contextmanager
def _unreadable(path: Path, what: str):
    try:
        yield
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        raise SqueezeError(
            f"The {what} in {path} cannot be read ({first_line}). "
            f"Fetch the small files again: {download_line(path)} --exclude '*.safetensors'"
        ) from error


def _build(folder: _Folder, weight_dtype: WeightDtype, device: torch.device | str) -> tuple[Any, bool]:
    """The frozen model, and whether it has an output layer."""
    model = _without_weights(folder.family.model_class, folder.config)
    _check_keys(folder.path, model, folder.stored)
    _fill(model, folder.stored, weight_dtype, device)
    can_generate = _settle_head(model, folder.settings, has_head=_HEAD in folder.stored)
    return model.eval().requires_grad_(False), can_generate


class _EmptyOnMeta(TorchFunctionMode):
    """Makes `torch.empty`, and so every large parameter, cost nothing, in this thread only.

    Other factories stay real. So the rotary frequencies, which are in no checkpoint, come out computed; on a
    model built wholly on meta they would have to be rebuilt class by class.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _without_weights(class_name: str, config: Any) -> Any:
    import transformers

    with _EmptyOnMeta():
        return getattr(transformers, class_name)._from_config(config, attn_implementation="sdpa")


def _renamed(stored: dict[str, StoredTensor], family: type[TransformersBackbone]) -> dict[str, StoredTensor]:
    """Keys of any layout -> keys of the model, computed constants left out."""

    def rename(key: str) -> str:
        for pattern, replacement in family.renames:
            new, count = re.subn(pattern, replacement, key)
            if count:
                return new
        return key

    return {rename(key): tensor for key, tensor in stored.items() if not _COMPUTED.search(key)}


def _check_keys(folder: Path, model: nn.Module, stored: dict[str, StoredTensor]) -> None:
    """Every tensor of the model must be there in its shape, except the output layer, and nothing else."""
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    missing = sorted(wanted.keys() - stored.keys() - {_HEAD})
    unexpected = sorted(stored.keys() - wanted.keys())
    if missing or unexpected:
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise SqueezeError(
            f"The weights in {folder} do not fit its config.json: {' and '.join(parts)}. "
            f"Fetch the folder again: {download_line(folder)}"
        )
    for key, tensor in stored.items():
        if tensor.shape != wanted[key]:
            raise SqueezeError(
                f"{key} in {folder} has shape {list(tensor.shape)}; config.json wants {list(wanted[key])}. "
                f"Fetch the folder again: {download_line(folder)}"
            )


def _fill(
    model: nn.Module,
    stored: dict[str, StoredTensor],
    weight_dtype: WeightDtype,
    device: torch.device | str,
) -> None:
    """Give every parameter its tensor. One compute dtype throughout: the one asked, or the embedding's."""
    modules = dict(model.named_modules())
    compute = _DTYPES.get(weight_dtype, stored[_EMBEDDING].dtype)
    reader = WeightReader()
    for key, tensor in stored.items():
        owner, _, leaf = key.rpartition(".")
        module = modules[owner]
        dtype = compute
        if weight_dtype == "fp8_e4m3fn" and _in_language_layer(key) and type(module) is nn.Linear:
            cast_as_used(module)
        if weight_dtype == "fp8_e4m3fn" and _in_language_layer(key) and isinstance(module, nn.Linear):
            dtype = torch.float8_e4m3fn if leaf == "weight" else compute
        if tensor.dtype == dtype and torch.device(device).type == "cpu":
            value = reader.mapped(tensor)
        else:
            value = reader.cast(tensor, dtype, device)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
        else:
            module._buffers[leaf] = value
    for name, buffer in model.named_buffers():
        owner, _, leaf = name.rpartition(".")
        if buffer.device.type != torch.device(device).type:
            modules[owner]._buffers[leaf] = buffer.to(device)


def _in_language_layer(key: str) -> bool:
    return key.startswith("model.language_model.layers.")


def _settle_head(model: Any, settings: dict, has_head: bool) -> bool:
    """Tie the output layer to the embedding when the config says so; without any, leave none behind.

    The raw config decides, the language model's word before the whole model's: defaults of the classes
    changed between versions. A head in the file always stands.
    """
    if has_head:
        return True
    text = settings.get("text_config") or {}
    tied = text.get("tie_word_embeddings", settings.get("tie_word_embeddings", True))
    if tied:
        model.lm_head.weight = model.model.language_model.embed_tokens.weight
        return True
    # A parameter left on meta would break whoever moves the model.
    model.lm_head = nn.Identity()
    return False
