"""X2I's published files -> adapters: one torch pickle, and the folder of the MLLM that it was trained for.

The layout (arXiv 2503.06134, code Apache-2.0, weights OPPOer/X2I): `conv.*` or `cha_scale`, `mlp.layernorm.*`,
`mlp.projector.0` and `.2`, `mlp.fc.1`, sometimes below `module.` or in a dictionary under `state_dict`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .adapter import Adapter, AdapterConfig, save
from .aligner import AlignerConfig
from .dla import Aggregator, DLAConfig
from .errors import SqueezeError
from .files import checked_header
from .flux.spec import DiTSpec
from .gate import Gate
from .mllm.backbone import MLLMIdentity
from .mllm.reading import Reading

Text = Literal["dictionary", "plain"]
Picture = Literal["224", "128"]
PadSide = Literal["left", "right"]

TRAINED_BY = "X2I (arXiv 2503.06134), by distillation from T5 and CLIP on texts alone; not on subjects"
FLUX_DEV = DiTSpec(width=3072, double_blocks=19, single_blocks=38, context=4096, name="FLUX.1-dev")
_GUIDANCE = 3.5
_TOKENS = 512
# What each family's own chat template says when nobody says anything.
_SYSTEM_PROMPTS = {
    "qwen2_5_vl": "You are a helpful assistant.",
    "internvl": "你是书生·万象，英文名是InternVL，"
    "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。",
}
_GET_IT = "hf download OPPOer/X2I qwen2.5-vl-7b_proj.pt"
# X2I's key -> ours.
_NAMES = {
    "conv.weight": "dla.plane.conv.weight",
    "conv.bias": "dla.plane.conv.bias",
    "cha_scale": "dla.plane.scale.weight",
    "mlp.layernorm.weight": "projector.norm.weight",
    "mlp.layernorm.bias": "projector.norm.bias",
    "mlp.projector.0.weight": "projector.inner.weight",
    "mlp.projector.2.weight": "projector.out.weight",
    "mlp.fc.1.weight": "projector.pooled.weight",
    "mlp.fc.1.bias": "projector.pooled.bias",
}
_MAY_LACK = {"conv.bias", "mlp.fc.1.bias"}


def read(
    path: str | Path,
    mllm: str | Path,
    *,
    text: Text = "dictionary",
    picture: Picture = "224",
    pad_side: PadSide = "left",
    system_prompt: str | None = None,
    dit: DiTSpec = FLUX_DEV,
) -> Adapter:
    """An aligner as an adapter without a LoRA; tensors keep their dtype.

    mllm: folder of the MLLM, of which config and final norm are read. text, pad_side: as in X2I's training by
        default; its scripts for users give the plain text and pad where the tokenizer does. picture: "224", at
        most 224 x 224 px with picture ids, as its nodes; "128", squeezed to 128 x 128 px, as its scripts;
        InternVL reads its own size. system_prompt: None means that of the family's own template.
    Raises `SqueezeError` for a file that is none of X2I's, that holds more than tensors, or that is for another
    MLLM.
    """
    from .mllm.loading import identify

    for name, given, accepted in (("text", text, Text), ("picture", picture, Picture), ("side", pad_side, PadSide)):
        if given not in get_args(accepted):
            raise SqueezeError(f'The {name} is "{given}"; choose one of {", ".join(get_args(accepted))}.')
    path = Path(path)
    state = _checked(_unwrapped(_tensors(path), path.name), path.name)
    identity = identify(mllm)
    config = AdapterConfig(
        mllm=replace(identity, name=Path(mllm).resolve().name),
        dit=dit,
        dla=_sizes(state, identity, dit, path.name, Path(mllm)),
        system_prompt=_SYSTEM_PROMPTS[identity.model_type] if system_prompt is None else system_prompt,
        reading=_reading(identity, text, picture, pad_side),
        pooled="aligner",
        gate=Gate(late="keep"),  # FLUX.1-dev was never trained without text
        guidance=_GUIDANCE,
        trained_by=TRAINED_BY,
    )
    return _adapter(config, state)


def convert(path: str | Path, mllm: str | Path, out: str | Path, **options: Any) -> AdapterConfig:
    """Write what `read` gives as an adapter file. Raises `SqueezeError` before anything is written."""
    adapter = read(path, mllm, **options)
    save(out, adapter.config, adapter.aggregator.state_dict(), {})
    return adapter.config


def is_aligner(path: str | Path) -> bool:
    """Whether a file goes by a name of X2I's downloads rather than an adapter's."""
    return Path(path).suffix.lower() in (".pt", ".pth", ".bin", ".ckpt")


def _tensors(path: Path) -> Any:
    """What the file holds, read without running anything of it."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise SqueezeError(f'The aligner "{path}" {what}. Get the file: {_GET_IT}')
    if path.suffix == ".safetensors":
        checked_header(path, "aligner")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise SqueezeError(f'"{path.name}" cannot be read as safetensors ({error}). Get it again.') from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {found[1]}" if found else "holds more than tensors"
        raise SqueezeError(
            f'"{path.name}" {what}, and weights are tensors only. It was not opened, because such a file can run '
            f"any program. Get X2I's own: {_GET_IT}"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0][:120]
        raise SqueezeError(f'"{path.name}" cannot be read as a torch file ({reason}). Get it: {_GET_IT}') from error


def _unwrapped(found: Any, name: str) -> dict[str, torch.Tensor]:
    """The state dict, whether bare or under `state_dict`, without `module.`."""
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise SqueezeError(f'"{name}" holds no dictionary of tensors, so it is no aligner. Get it: {_GET_IT}')
    state = {}
    for key, value in found.items():
        if not isinstance(value, torch.Tensor) or not isinstance(key, str):
            kind = type(value).__name__
            raise SqueezeError(f'"{name}" holds {key} as {kind} where a tensor belongs. Get it again: {_GET_IT}')
        state[key.removeprefix("module.")] = value
    return state


def _checked(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Exactly the keys of an aligner, in two shapes that fit together."""
    first = "cha_scale" if "cha_scale" in state else "conv.weight"
    wanted = {key for key in _NAMES if not key.startswith("conv.") and key != "cha_scale"} | {first}
    allowed = wanted | _MAY_LACK - ({"conv.bias"} if first == "cha_scale" else set())
    for problem, keys in (("lacks", wanted - state.keys()), ("holds the unknown", state.keys() - allowed)):
        if keys:
            some = ", ".join(sorted(keys)[:2])
            raise SqueezeError(
                f'"{name}" {problem} {some}, so it is no aligner of X2I for Qwen2.5-VL or InternVL2.5. Get one: '
                f"{_GET_IT}"
            )
    for key, dimensions in ((first, 4), ("mlp.layernorm.weight", 1), ("mlp.projector.0.weight", 2)):
        if state[key].ndim != dimensions:
            raise SqueezeError(f'"{name}" holds {key} of shape {list(state[key].shape)}. Get it again: {_GET_IT}')
    return state


def _sizes(
    state: dict[str, torch.Tensor], identity: MLLMIdentity, dit: DiTSpec, name: str, folder: Path
) -> DLAConfig:
    scaled = "cha_scale" in state
    layers = state["cha_scale" if scaled else "conv.weight"].shape[1]
    hidden, context = state["mlp.layernorm.weight"].shape[0], state["mlp.projector.2.weight"].shape[0]
    if (layers, hidden) != (identity.layers + 1, identity.hidden_size):
        raise SqueezeError(
            f'"{name}" is for an MLLM with {layers} states of width {hidden}, and "{folder.name}" has '
            f"{identity.layers + 1} of width {identity.hidden_size}. Give the folder of its own MLLM."
        )
    # Qwen2.5-VL-7B and InternVL3-8B have the same sizes, so have Qwen2.5-VL-3B and InternVL2.5-4B.
    said = name.lower()
    for word, kind in (("qwen", "qwen2_5_vl"), ("intern", "internvl")):
        if word in said and identity.model_type != kind:
            raise SqueezeError(
                f'"{name}" is for {"Qwen2.5-VL" if word == "qwen" else "InternVL2.5"} by its name, and '
                f'"{folder.name}" is of type {identity.model_type}. Give the folder of its own MLLM.'
            )
    if (layers, hidden, identity.model_type) == (29, 3584, "internvl"):
        raise SqueezeError(
            f'"{name}" is for Qwen2.5-VL-7B-Instruct, and "{folder.name}" is an InternVL of the same size. Give '
            "the folder of Qwen2.5-VL-7B-Instruct."
        )
    if context != dit.context:
        raise SqueezeError(
            f'"{name}" gives a context of width {context}, and {dit.name or "FLUX"} reads {dit.context}. Get '
            f"X2I's own file: {_GET_IT}"
        )
    return DLAConfig(
        hidden=hidden,
        layers=layers,
        context=context,
        variant="convolution",
        aligner=AlignerConfig(
            kernel=None if scaled else state["conv.weight"].shape[-1],
            bias="conv.bias" in state,
            inner=state["mlp.projector.0.weight"].shape[0],
            pooled=state["mlp.fc.1.weight"].shape[0],
            pooled_bias="mlp.fc.1.bias" in state,
        ),
    )


def _reading(identity: MLLMIdentity, text: Text, picture: Picture, pad_side: PadSide) -> Reading:
    plain = Reading(text=text, pad_to=_TOKENS, pad_side=pad_side)
    if identity.model_type != "qwen2_5_vl":
        return plain
    nodes = picture == "224"
    return plain.model_copy(update={"picture_side": int(picture), "keep_shape": nodes, "numbered": nodes})


def _adapter(config: AdapterConfig, state: dict[str, torch.Tensor]) -> Adapter:
    renamed = {_NAMES[key]: tensor for key, tensor in state.items()}
    if "cha_scale" in state:  # a mean over layers of scaled states is a sum with scale / layers
        scale = state["cha_scale"]
        renamed[_NAMES["cha_scale"]] = (scale.float() / scale.shape[1]).to(scale.dtype).reshape(1, -1)
    with torch.device("meta"):
        aggregator = Aggregator(config.dla)
    for key, meant in aggregator.state_dict().items():
        if renamed[key].shape != meant.shape:
            raise SqueezeError(
                f"Its {key} is {list(renamed[key].shape)}; its other tensors ask for {list(meant.shape)}. "
                f"Get it again: {_GET_IT}"
            )
    aggregator.load_state_dict(renamed, assign=True)
    return Adapter(config, aggregator.requires_grad_(False).eval(), {})
