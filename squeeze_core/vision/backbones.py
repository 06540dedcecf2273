"""DINO and CLIP: pictures and prompts -> unit vectors, whose products are the cosines of every identity score.

Models come from local folders only (`weights.locate`), in float32. What was loaded, and how pictures were
resized and cropped, is in `spec` and goes into every report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import pretrained
from . import preprocessing
from .preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from .registry import BackboneSpec, Role, describe, fetch_line, read_config, weight_file

if TYPE_CHECKING:
    from PIL.Image import Image


# Configs written by old versions of transformers leave out what equals its default then.
_CLIP_VISION = {"hidden_size": 768, "num_hidden_layers": 12, "patch_size": 32, "image_size": 224}


class Dino:
    """DINO's class token: [pictures, width]."""

    def __init__(self, model: nn.Module, spec: BackboneSpec, prepare: Preprocessing) -> None:
        self.model, self.spec, self.prepare = model, spec, prepare

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Image]) -> torch.Tensor:
        """RGB pictures -> [pictures, width] unit vectors, float32 on the CPU."""
        pixels = torch.stack([self.prepare(picture) for picture in pictures])
        states = self.model(pixel_values=pixels.to(_device(self.model))).last_hidden_state
        return _unit(states[:, 0])


class Clip:
    """CLIP's picture and text embeddings in their common space."""

    def __init__(self, model: Any, tokenizer: Any, spec: BackboneSpec, prepare: Preprocessing) -> None:
        self.model, self.tokenizer, self.spec, self.prepare = model, tokenizer, spec, prepare

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Image]) -> torch.Tensor:
        """RGB pictures -> [pictures, width] unit vectors, float32 on the CPU."""
        pixels = torch.stack([self.prepare(picture) for picture in pictures])
        pooled = self.model.vision_model(pixel_values=pixels.to(_device(self.model))).pooler_output
        return _unit(self.model.visual_projection(pooled))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Prompts -> [texts, width] unit vectors. What is longer than CLIP reads is cut (see `is_too_long`)."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(_device(self.model))
        pooled = self.model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return _unit(self.model.text_projection(pooled))

    @property
    def max_tokens(self) -> int:
        """77 for every published CLIP, begin and end token included."""
        return self.model.config.text_config.max_position_embeddings

    def is_too_long(self, text: str) -> bool:
        """Whether CLIP reads only the beginning of a prompt."""
        most = self.max_tokens + 1
        return len(self.tokenizer(text, truncation=True, max_length=most)["input_ids"]) == most


def load_dino(folder: str | Path, device: torch.device | str = "cpu") -> Dino:
    """From a local folder in the layout of facebook/dino-vits16. Raises `SqueezeError`.

    Resize 256 and crop 224 for 224 px models, as DINO's authors and DreamBooth do, whatever the folder's own
    preprocessor says (it has no crop).
    """
    from transformers import ViTModel

    folder = Path(folder).expanduser()
    config = read_config(folder, "dino")
    crop = int(config.get("image_size", 224))
    prepare = Preprocessing(resize=crop * 256 // 224, crop=crop)
    file = weight_file(folder, "dino")
    spec = describe(folder, "dino", file, "vit", prepare.as_dict(), _architecture(config))
    model = _load(ViTModel, folder, "dino", add_pooling_layer=False)
    return Dino(model.to(device), spec, prepare)


def load_clip(folder: str | Path, device: torch.device | str = "cpu") -> Clip:
    """From a local folder in the layout of openai/clip-vit-base-patch32. Raises `SqueezeError`."""
    from transformers import AutoTokenizer, CLIPModel

    folder = Path(folder).expanduser()
    config = read_config(folder, "clip")
    side = int(config.get("vision_config", {}).get("image_size", 224))
    prepare = preprocessing.read(folder, Preprocessing(side, side, CLIP_MEAN, CLIP_STD))
    file, vision = weight_file(folder, "clip"), _architecture(_CLIP_VISION | config.get("vision_config", {}))
    spec = describe(folder, "clip", file, "clip", prepare.as_dict(), vision)
    model = _load(CLIPModel, folder, "clip")
    tokenizer = _load(AutoTokenizer, folder, "clip")
    return Clip(model.to(device), tokenizer, spec, prepare)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """[n, width], [m, width] unit vectors -> [n, m], in float64 so that sums over many pairs stay exact."""
    return a.double() @ b.double().T


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """What tells one variant from another, of a vision model's config."""
    names = {"width": "hidden_size", "layers": "num_hidden_layers", "patch": "patch_size", "side": "image_size"}
    return {short: config.get(name) for short, name in names.items()}


def _load(kind: Any, folder: Path, role: Role, **options: Any) -> Any:
    return pretrained.load(kind, folder, fetch_line(role, folder.parent), **options)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()
