"""Text and pictures -> `LayerStates`, by a frozen multimodal LLM that lies in a folder on disk.

`load` opens the folder, `Backbone.encode` gives the states of all layers, `Backbone.generate` the model's
answer as text; `write_prompt.py` asks for a prompt. `backbone.py` is the interface, `internvl.py` and
`qwen_vl.py` are the families, `family.py` is what they share.

Names are imported when first used, and none of them imports transformers before a model is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backbone import Backbone, MLLMIdentity, Progress, Prompt
    from .folders import FoundModel, find_models
    from .loading import WeightDtype, load
    from .states import LayerStates

_HOME = {
    "Backbone": "backbone",
    "FoundModel": "folders",
    "LayerStates": "states",
    "MLLMIdentity": "backbone",
    "Progress": "backbone",
    "Prompt": "backbone",
    "WeightDtype": "loading",
    "find_models": "folders",
    "load": "loading",
}

__all__ = [
    "Backbone",
    "FoundModel",
    "LayerStates",
    "MLLMIdentity",
    "Progress",
    "Prompt",
    "WeightDtype",
    "find_models",
    "load",
]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
