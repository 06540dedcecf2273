"""What the toy world hands to training, which knows nothing of it: its models and its pairs, by their name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.config import ToySource
from .examples import ToyExamples, ToyTold
from .world import SHIPPED, build

if TYPE_CHECKING:
    from ..training.distillation.teacher import T5Words

NAME = "toyworld"


def _place(part: str) -> Path:
    return getattr(build(), part)


def _open(source: ToySource) -> ToyExamples:
    return ToyExamples(**source.options)


def _open_told(source: ToySource) -> ToyTold:
    return ToyTold(**source.options)


def words(text_weights: Path = SHIPPED / "text.safetensors", mllm_folder: Path | None = None) -> T5Words:
    """The T5 that the toy's FLUX learned with, as a teacher. Its tokens are the MLLM's."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from ..training.distillation.teacher import T5Words
    from .making.painter import text_encoder

    model = text_encoder().eval().requires_grad_(False)
    state = {name: tensor.float() for name, tensor in load_file(text_weights).items()}
    model.load_state_dict({**state, "encoder.embed_tokens.weight": state["shared.weight"]})  # tied
    folder = build().mllm if mllm_folder is None else mllm_folder
    return T5Words(model, AutoTokenizer.from_pretrained(folder, local_files_only=True), length=0)


PLACES: Mapping[str, Callable[[str], Path]] = {NAME: _place}
OPENERS: Mapping[str, Callable[[ToySource], ToyExamples]] = {NAME: _open}
TOLD_OPENERS: Mapping[str, Callable[[ToySource], ToyTold]] = {NAME: _open_told}
TEACHERS: Mapping[str, Callable[[], T5Words]] = {NAME: words}
