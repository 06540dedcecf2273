"""FLUX.1 and its VAE from where they lie on the disk, in diffusers' layout or in one published file.

Nothing is downloaded. The MLLM has its own loader (`mllm.load`), and so has the adapter (`adapter.load`).
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..errors import SqueezeError
from ..files import checked_header
from . import layouts as bfl

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FluxTransformer2DModel

Dtype = Literal["default", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_FLUX_VAE = {
    "latent_channels": 16,
    "norm_num_groups": 32,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def load_flux(path: str | Path, dtype: Dtype = "default") -> FluxTransformer2DModel:
    """FLUX.1 from a diffusers folder (of the whole model or of its transformer), or one safetensors file.

    dtype: "default" keeps what the file holds, mapped; files in 8 bits become bf16. Raises `SqueezeError`.
    """
    from diffusers import FluxTransformer2DModel

    path = _existing(path, "FLUX.1")
    if path.is_dir():
        folder = _part(path, "transformer", "FluxTransformer2DModel")
        return _from_folder(FluxTransformer2DModel, folder, dtype)
    state = _read(path, dtype)
    for key in ("img_in.weight", "model.diffusion_model.img_in.weight"):
        if key in state:
            state = bfl.from_bfl(state, width=state[key].shape[0])
            break
    config = _flux_config(state, path)
    with torch.device("meta"):
        model = FluxTransformer2DModel(**config)
    _assign(model, state, path)
    return model.eval().requires_grad_(False)


def load_vae(path: str | Path, dtype: Dtype = "default") -> AutoencoderKL:
    """FLUX.1's VAE from a diffusers folder (of the whole model or of the VAE), or one safetensors file.

    Raises `SqueezeError`, also for a VAE of another model: FLUX.1's has 16 latent channels.
    """
    from diffusers import AutoencoderKL

    path = _existing(path, "the VAE of FLUX.1")
    if path.is_dir():
        vae = _from_folder(AutoencoderKL, _part(path, "vae", "AutoencoderKL"), dtype)
    elif (path.parent / "config.json").is_file():
        vae = _from_folder(AutoencoderKL, _part(path.parent, "vae", "AutoencoderKL"), dtype)
    else:
        vae = _vae_from_file(path, dtype)
    if vae.config.latent_channels != 16:
        raise SqueezeError(
            f'The VAE at "{path}" has {vae.config.latent_channels} latent channels; FLUX.1\'s has 16. '
            "Take ae.safetensors of FLUX.1-dev."
        )
    return vae.eval().requires_grad_(False)


def torch_dtype(dtype: Dtype) -> torch.dtype | None:
    """None for "default". Raises `SqueezeError` for an unknown name."""
    if dtype not in get_args(Dtype):
        raise SqueezeError(f'The dtype is "{dtype}"; choose one of {", ".join(get_args(Dtype))}.')
    return _DTYPES.get(dtype)


def _existing(path: str | Path, what: str) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise SqueezeError(
            f'There is nothing at "{path}". Give the folder or the .safetensors file of {what}, or fetch it: '
            "hf download black-forest-labs/FLUX.1-dev --local-dir models/FLUX.1-dev (non-commercial licence)."
        )
    if path.is_file() and path.suffix != ".safetensors":
        raise SqueezeError(
            f'"{path.name}" is no .safetensors file. Give {what} as .safetensors or as a diffusers folder '
            "(GGUF files work in ComfyUI)."
        )
    return path


def _part(folder: Path, part: str, class_name: str) -> Path:
    """The folder of one model, given itself or a whole diffusers pipeline. Raises `SqueezeError`."""
    folder = folder / part if (folder / part / "config.json").is_file() else folder
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = config.get("_class_name", config.get("model_type"))
    except (OSError, ValueError, AttributeError):
        found = None
    if found != class_name:
        raise SqueezeError(
            f'"{folder}" is no diffusers folder of a {class_name}'
            + (f", but of a {found}" if found else ": it has no readable config.json")
            + f". Give the folder {part} of FLUX.1-dev, or one .safetensors file."
        )
    return folder


def _from_folder(kind: Any, folder: Path, dtype: Dtype) -> Any:
    wanted = torch_dtype(dtype) or _stored_dtype(folder)
    try:
        model = kind.from_pretrained(folder, torch_dtype=wanted, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise SqueezeError(f'"{folder}" cannot be loaded ({first_line}). Fetch the folder again.') from error
    return model.eval().requires_grad_(False)


def _stored_dtype(folder: Path) -> torch.dtype:
    """Of the first tensor of the folder; without this, diffusers would make everything float32."""
    for path in sorted(folder.glob("*.safetensors")):
        checked_header(path, "model")
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, not a mapping
                return file.get_tensor(key).dtype
    raise SqueezeError(f'"{folder}" holds no .safetensors weights, the only kind that is read. Fetch them again.')


def _read(path: Path, dtype: Dtype) -> dict[str, torch.Tensor]:
    checked_header(path, "model")
    wanted, state = torch_dtype(dtype), {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118, not a mapping
                tensor = file.get_tensor(key)
                # Eight bits cannot be computed with here.
                target = wanted or (torch.bfloat16 if tensor.itemsize == 1 else tensor.dtype)
                state[key] = tensor.to(target)
    except SafetensorError as error:
        raise SqueezeError(f'"{path.name}" cannot be read as safetensors ({error}). Get the file again.') from error
    return state


def _shape(state: Mapping[str, torch.Tensor], key: str, path: Path) -> torch.Size:
    if key not in state:
        raise SqueezeError(f'"{path.name}" holds no {key}: it is no whole FLUX.1. Give another file.')
    return state[key].shape


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _flux_config(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, Any]:
    """FLUX.1's config as the shapes tell it; heads are always 128 wide."""
    width, channels = _shape(state, "x_embedder.weight", path)
    return {
        "in_channels": channels,
        "out_channels": _shape(state, "proj_out.bias", path)[0],
        "num_layers": _count(state, r"transformer_blocks\.(\d+)\."),
        "num_single_layers": _count(state, r"single_transformer_blocks\.(\d+)\."),
        "attention_head_dim": 128,
        "num_attention_heads": width // 128,
        "joint_attention_dim": _shape(state, "context_embedder.weight", path)[1],
        "pooled_projection_dim": _shape(state, "time_text_embed.text_embedder.linear_1.weight", path)[1],
        "guidance_embeds": any("guidance_embedder" in key for key in state),
    }


def _assign(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()
        raise SqueezeError(
            f'"{path.name}" is no whole FLUX.1 ({(detail[1:] or detail)[0].strip()[:200]}). Get the file again.'
        ) from error


def _vae_from_file(path: Path, dtype: Dtype) -> AutoencoderKL:
    """One file in the published layout. Widths are read from its shapes; the rest is FLUX's."""
    from diffusers import AutoencoderKL

    state = _read(path, dtype)
    firsts = [f"encoder.down.{i}.block.0.conv2.weight" for i in range(8)]
    widths = [state[key].shape[0] for key in firsts if key in state]
    if not widths:
        raise SqueezeError(f'"{path.name}" is no VAE in the published layout. Take ae.safetensors of FLUX.1-dev.')
    config = {
        "_class_name": "AutoencoderKL",
        **_FLUX_VAE,
        "latent_channels": state["encoder.conv_out.weight"].shape[0] // 2,
        "block_out_channels": widths,
        "layers_per_block": _count(state, r"encoder\.down\.0\.block\.(\d+)\."),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }
    stored = next(iter(state.values())).dtype
    with tempfile.TemporaryDirectory() as folder:
        # Diffusers takes a config only from a folder; without one it would ask the Hub.
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        vae = AutoencoderKL.from_single_file(state, config=folder, local_files_only=True, torch_dtype=stored)
    missing = [name for name, parameter in vae.named_parameters() if parameter.is_meta]
    if missing:
        raise SqueezeError(f'"{path.name}" lacks {missing[0]} of a VAE. Get the file again.')
    return vae
