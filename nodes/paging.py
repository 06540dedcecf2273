"""ComfyUI's memory manager: any module under a patcher, each of its layers fetching its weights as it runs.

`swap_layers` makes every layer fetch its weights where and when they are used; `host` puts a module under a
patcher. Two patchers exist. The classic one moves layers to the GPU until its room is spent and lets the others
be cast as they are used. The dynamic one (CoreModelPatcher on recent systems) leaves weights where they are and
pages them in. Both know layers only: parameters of modules that have children, and buffers of modules without
parameters, are brought along by callbacks here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.patcher_extension import CallbacksMP
from torch import nn

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.mllm.backbone import Progress

Device = Literal["default", "gpu", "cpu"]
DEVICES: tuple[Device, ...] = ("default", "gpu", "cpu")

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


# Layers that fetch their weights as they are used.


class _FetchedWeights(comfy.ops.CastWeightBiasOp):
    """Any layer with `weight` and `bias`, its own forward untouched: it sees fetched copies of the two.

    So a norm keeps its order of float32 steps, whichever norm it is, and a linear map with a forward of its
    own keeps it.
    """

    comfy_cast_weights = True

    def forward(self, x: torch.Tensor, *args, **kwargs):
        # A linear map works in the dtype of its input. A norm's weight keeps its own dtype, which decides
        # that of the result; fp8 is a form of storage only.
        follow_input = isinstance(self, nn.Linear) or self.weight.dtype in _FP8
        dtype = x.dtype if follow_input else self.weight.dtype
        weight, bias, stream = comfy.ops.cast_bias_weight(
            self, device=x.device, dtype=dtype, bias_dtype=dtype, offloadable=True
        )
        # An instance attribute hides a parameter of the same name, which stays registered as it is.
        fetched = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        vars(self).update(fetched)
        try:
            return super().forward(x, *args, **kwargs)
        finally:
            for name in fetched:
                del vars(self)[name]
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)


class _Embedding(comfy.ops.manual_cast.Embedding):
    """Looks rows up where the table lies and moves only them: the table of an 8B MLLM is 1 GB."""

    def forward_comfy_cast_weights(self, input: torch.Tensor, out_dtype: torch.dtype | None = None):
        if self.weight_function or self.weight.dtype in _FP8:
            return super().forward_comfy_cast_weights(input, out_dtype)
        rows = nn.Embedding.forward(self, input.to(self.weight.device))
        return rows.to(device=input.device, dtype=out_dtype)


_CORE_LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: comfy.ops.manual_cast.Linear,
    nn.Conv1d: comfy.ops.manual_cast.Conv1d,
    nn.Conv2d: comfy.ops.manual_cast.Conv2d,
    nn.Conv3d: comfy.ops.manual_cast.Conv3d,
    nn.LayerNorm: comfy.ops.manual_cast.LayerNorm,
    nn.GroupNorm: comfy.ops.manual_cast.GroupNorm,
    nn.Embedding: _Embedding,
}


def swap_layers(module: nn.Module) -> nn.Module:
    """Make every layer of `module` fetch its weights as it runs, in place; returns `module`.

    Only the class of a layer changes: names, parameters, hooks and results stay. A layer is a module
    without children or buffers whose parameters are `weight` and perhaps `bias`. Others, such as batch norms,
    are left as they are, and `host` keeps them whole on the device that computes.
    """
    for layer in module.modules():
        names = set(layer._parameters)
        if hasattr(layer, "comfy_cast_weights") or next(layer.children(), None) is not None:
            continue
        if getattr(layer, "weight", None) is None or not names <= {"weight", "bias"} or layer._buffers:
            continue
        layer.__class__ = _CORE_LAYERS.get(type(layer)) or _fetching(type(layer))
        layer.weight_function, layer.bias_function = [], []
        if not hasattr(layer, "bias"):
            layer.bias = None  # the core reads it on every layer
    return module


@cache
def _fetching(layer: type[nn.Module]) -> type[nn.Module]:
    return type(layer.__name__, (_FetchedWeights, layer), {"__module__": layer.__module__})


# Patchers.


def host(
    module: nn.Module,
    *,
    load_device: torch.device | None = None,
    offload_device: torch.device | None = None,
) -> comfy.model_patcher.ModelPatcher:
    """Put a module under ComfyUI's memory manager; its layers are swapped in place.

    load_device: where it computes, by default where ComfyUI computes text encoders. offload_device: where
    its weights wait. The module itself is `patcher.model.module`: a transformers model has a read-only
    `device`, which a patcher wants to write, so it is nested, in a class of the same name for the log.
    """
    swap_layers(module)
    nest = type(type(module).__name__, (nn.Module,), {})()
    nest.module = module
    # Looked up late: ComfyUI replaces it at start, and not every version has it.
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = patcher_class(
        nest,
        load_device=load_device or comfy.model_management.text_encoder_device(),
        offload_device=offload_device or comfy.model_management.text_encoder_offload_device(),
        size=_weight_bytes(module),
    )
    patcher.add_callback_with_key(CallbacksMP.ON_LOAD, "squeeze", _after_load)
    patcher.add_callback_with_key(CallbacksMP.ON_DETACH, "squeeze", _after_detach)
    return patcher


def load_models(patchers: Sequence[comfy.model_patcher.ModelPatcher], memory_required: int) -> None:
    """Have the memory manager load these, keeping `memory_required` bytes free for their computation."""
    comfy.model_management.load_models_gpu(list(patchers), memory_required=memory_required)
    for patcher in patchers:
        # Shrinking a loaded model moves layers away without a word to the callbacks.
        _bring_what_cannot_be_fetched(patcher, patcher.load_device)


def _after_load(patcher, device_to, *_) -> None:
    _bring_what_cannot_be_fetched(patcher, device_to)


def _after_detach(patcher, unpatch_all) -> None:
    if unpatch_all:
        _bring_what_cannot_be_fetched(patcher, patcher.offload_device)


def _bring_what_cannot_be_fetched(patcher, device: torch.device) -> None:
    """Move InternVL's class token and layer scales, rotary frequencies and the like: a few megabytes."""
    for module in patcher.model.modules():
        if not hasattr(module, "comfy_cast_weights"):
            module._apply(lambda tensor: tensor.to(device), recurse=False)


def _weight_bytes(module: nn.Module) -> int:
    """Bytes of all parameters, tied ones once; the core's own count takes them twice."""
    return sum(parameter.nbytes for parameter in module.parameters())


def host_scorer(scorer: Any, memory_required: int) -> None:
    """Put the `model` of an evaluation backbone under the memory manager and load it.

    The backbone computes where its model's first parameter lies. In DINO, CLIP and Orient Anything that is one
    which cannot be fetched, so it is on the device that computes even when layers are paged. The patcher lives as
    long as the scorer, which holds it.
    """
    scorer.patcher = host(scorer.model, load_device=comfy.model_management.get_torch_device())
    load_models([scorer.patcher], memory_required)


def compute_device(device: Device) -> torch.device:
    """Where ComfyUI computes text encoders, or where it is told to.

    With --lowvram and --novram on the classic patcher ComfyUI computes text encoders on the CPU; "gpu" pages
    the weights through the GPU instead. Raises `SqueezeError` for another name.
    """
    if device not in DEVICES:
        raise SqueezeError(f"The device is {device!r}; accepted are {', '.join(DEVICES)}.")
    if device == "gpu":
        return comfy.model_management.get_torch_device()
    return torch.device("cpu") if device == "cpu" else comfy.model_management.text_encoder_device()


def interruptible_progress(also: Progress | None = None) -> Progress:
    """Drives the bar of the node that runs, and raises when the user has interrupted the graph."""
    bar: comfy.utils.ProgressBar | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar = bar or comfy.utils.ProgressBar(total)
        bar.update_absolute(done, total)
        if also is not None:
            also(done, total)

    return report


def is_dynamic(patcher: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether it pages weights in."""
    return getattr(patcher, "is_dynamic", lambda: False)()  # older patchers lack it
