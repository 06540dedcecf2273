"""Orient Anything: which way the thing in a picture faces.

The published file holds a whole DINOv2 and a small head, so that nothing else has to be fetched. The head gives
one bin a degree: 360 of azimuth, 180 of polar angle, 180 or 360 of rotation (older and newer file), and two
logits of whether the thing has a front at all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import SqueezeError
from .backbones import _device
from .preprocessing import Preprocessing
from .registry import KNOWN, BackboneSpec, describe, fetch_line

if TYPE_CHECKING:
    from PIL.Image import Image

AZIMUTHS, POLARS = 360, 180
_FILES = (KNOWN["orientation"].file, "dino_weight.pt", "croplargeEX2/dino_weight.pt", "model.safetensors")


@dataclass(frozen=True)
class Orientation:
    """Degrees: azimuth 0 to 359, polar -90 to 89, rotation about the line of sight. confidence 0 to 1."""

    azimuth: float
    polar: float
    rotation: float
    confidence: float


class OrientAnything:
    def __init__(self, model: nn.Module, spec: BackboneSpec, prepare: Preprocessing) -> None:
        self.model, self.spec, self.prepare = model, spec, prepare

    @torch.inference_mode()
    def estimate(self, pictures: Sequence[Image]) -> list[Orientation]:
        """One orientation for each picture of one thing, best a square crop around it."""
        pixels = torch.stack([self.prepare(picture) for picture in pictures])
        return read_angles(self.model(pixels.to(_device(self.model))).float().cpu())


class OrientationModel(nn.Module):
    """DINOv2's class token through two linear layers with batch norm, named as in the published file."""

    def __init__(self, dinov2: Any, width: int, bins: int) -> None:
        super().__init__()
        self.dinov2: Any = dinov2
        self.down_sampler = nn.ModuleDict(
            {
                "net1": nn.Sequential(nn.Linear(width, bins), nn.BatchNorm1d(bins), nn.ReLU()),
                "net2": nn.Sequential(nn.Linear(bins, bins), nn.BatchNorm1d(bins)),
            }
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[pictures, 3, side, side] -> [pictures, bins] logits."""
        token = self.dinov2(pixel_values=pixel_values).last_hidden_state[:, 0]
        return self.down_sampler["net2"](self.down_sampler["net1"](token))


def read_angles(logits: torch.Tensor) -> list[Orientation]:
    """[pictures, 722 or 902] logits of the head -> angles: the best bin of each."""
    rotations = logits.shape[1] - AZIMUTHS - POLARS - 2
    azimuth, polar, rotation, front = logits.split([AZIMUTHS, POLARS, rotations, 2], dim=1)
    confidence = front.softmax(dim=1)[:, 0]
    return [
        Orientation(float(a), float(p - POLARS // 2), float(r - rotations // 2), float(c))
        for a, p, r, c in zip(azimuth.argmax(1), polar.argmax(1), rotation.argmax(1), confidence)
    ]


def load_orientation(path: str | Path, device: torch.device | str = "cpu") -> OrientAnything:
    """From the published dino_weight.pt, or a folder that holds it. Raises `SqueezeError`."""
    file = _file(Path(path).expanduser())
    state = _read(file)
    model = _build(state, file)
    config = model.dinov2.config
    patch: int = config.patch_size
    sizes = {"width": config.hidden_size, "layers": config.num_hidden_layers, "patch": patch}
    prepare = Preprocessing(resize=256, crop=224 // patch * patch)
    folder = file.parent if file.parent.name not in ("ronormsigma1", "croplargeEX2") else file.parent.parent
    spec = describe(folder, "orientation", file, "orient-anything", prepare.as_dict(), sizes)
    return OrientAnything(model.to(device), spec, prepare)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise SqueezeError(f'"{path}" holds no dino_weight.pt. {fetch_line("orientation", path.parent)}')


def _read(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise SqueezeError(
            f'"{file}" cannot be read ({reason}). {fetch_line("orientation", file.parent)}'
        ) from error
    return dict(state)


def _build(state: Mapping[str, torch.Tensor], file: Path) -> OrientationModel:
    """The model whose sizes the file's shapes tell."""
    from transformers import Dinov2Config, Dinov2Model

    try:
        bins, width = state["down_sampler.net1.0.weight"].shape
        positions = state["dinov2.embeddings.position_embeddings"].shape[1] - 1
        patch = state["dinov2.embeddings.patch_embeddings.projection.weight"].shape[-1]
        swiglu = "dinov2.encoder.layer.0.mlp.weights_in.weight" in state
        ratio = 4 if swiglu else state["dinov2.encoder.layer.0.mlp.fc1.weight"].shape[0] // width
    except KeyError as error:
        raise SqueezeError(
            f'"{file}" lacks {error.args[0]} and is not Orient Anything. {fetch_line("orientation", file.parent)}'
        ) from error
    layers = len({m[1] for key in state if (m := re.match(r"dinov2\.encoder\.layer\.(\d+)\.", key))})
    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),  # as in every DINOv2
        mlp_ratio=ratio,
        patch_size=patch,
        image_size=math.isqrt(positions) * patch,
        use_swiglu_ffn=swiglu,
    )
    model = OrientationModel(Dinov2Model(config), width, bins)
    missing, unexpected = model.load_state_dict(dict(state), strict=False)
    missing = [key for key in missing if not key.endswith(("mask_token", "num_batches_tracked"))]
    if missing or unexpected or bins not in (722, 902):
        what = f"lacks {missing[0]}" if missing else f"holds {unexpected[0]}" if unexpected else f"has {bins} bins"
        raise SqueezeError(
            f'"{file}" {what} and is not Orient Anything as published. {fetch_line("orientation", file.parent)}'
        )
    return model.eval().requires_grad_(False)
