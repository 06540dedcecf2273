"""The nodes. Thin: sockets, tooltips and ComfyUI's ways; the method is in `squeeze_core`."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..squeeze_core.errors import SqueezeError
from . import folders
from .conditioning import LoadConditioning, SaveConditioning
from .dla import Aggregate, LoadAdapter
from .encode_plan import EncodePlan
from .gate import TimestepGate
from .krea import SelectLayers
from .layout import ApplyLayout, SubjectNode
from .mllm import Encode, LoadMLLM, WritePrompt
from .pick_best import PickBest
from .planning import EditPlan, PlanScene
from .plots import ShowGate, ShowLayers
from .references import ReferenceTokens
from .score import Score
from .sigmas import Sigmas
from .toyworld import ToyWorldNode


class SqueezeExtension(ComfyExtension):
    """What ComfyUI asks the pack for."""

    async def on_load(self) -> None:
        folders.register()
        # ComfyUI puts a class and its module before the message, and leaves the module of built-in errors out.
        SqueezeError.__module__ = "builtins"

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        folders.register()  # `on_load` exists since 0.14 only
        return [
            LoadMLLM,
            LoadAdapter,
            Encode,
            Aggregate,
            WritePrompt,
            ReferenceTokens,
            TimestepGate,
            SubjectNode,
            ApplyLayout,
            EncodePlan,
            Sigmas,
            ShowGate,
            ShowLayers,
            SelectLayers,
            SaveConditioning,
            LoadConditioning,
            ToyWorldNode,
            Score,
            PlanScene,
            EditPlan,
            PickBest,
        ]
