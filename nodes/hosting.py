"""Everything about ComfyUI's memory manager: MLLM and DLA live in it like the models that ComfyUI loads.

`swap_layers` makes every layer fetch its weights where and when they are used, `host` puts a module under a
patcher, and the two holders, `HostedMLLM` and `HostedDLA`, are what the sockets SQUEEZE_MLLM and SQUEEZE_DLA
carry. Their `.patcher` is how the memory manager finds them.

Two patchers exist. The classic one moves layers to the GPU until its room is spent and lets the others be
cast as they are used. The dynamic one (CoreModelPatcher on recent systems) leaves weights where they are and
pages them in. Both know layers only: parameters of modules that have children, and buffers of modules
without parameters, are brought along by callbacks here.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.patcher_extension import CallbacksMP
from torch import nn

from ..squeeze_core.errors import SqueezeError
from ..squeeze_core.finite import DLA_ADVICE, check_finite
from ..squeeze_core.mllm.backbone import Backbone, Progress, Prompt
from ..squeeze_core.mllm.states import LayerStates
from .memory import aggregate_bytes, encode_bytes, generate_bytes

if TYPE_CHECKING:
    from ..squeeze_core.adapter import Adapter, AdapterConfig
    from ..squeeze_core.dla import Aggregator, LayerWeights


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


# What the sockets carry.


class HostedMLLM(Backbone):
    """An MLLM under the memory manager (socket SQUEEZE_MLLM). It is a `Backbone` that sees to its weights.

    The language model's head has a patcher of its own unless it is tied to the embedding: encoding does
    not need it, and it weighs 1 GB at 8B.
    """

    def __init__(self, backbone: Backbone, device: Device = "default"):
        self.backbone = backbone
        self.identity = backbone.identity
        self.model = backbone.model
        body, head = _body_and_head(backbone.model)
        compute = compute_device(device)
        waiting = torch.device("cpu") if device == "cpu" else None
        self.patcher = host(body, load_device=compute, offload_device=waiting)
        self.head_patcher = None if head is None else host(head, load_device=compute, offload_device=waiting)

    @property
    def _item(self) -> int:
        """Bytes of an activation: states have the dtype of the embedding, which is never stored as fp8."""
        return self.model.get_input_embeddings().weight.dtype.itemsize

    def is_dynamic(self) -> bool:
        """Asked by ComfyUI's cache, which keeps what is paged by the dynamic patcher when main memory is short."""
        return _is_dynamic(self.patcher)

    def get_models(self) -> list[comfy.model_patcher.ModelPatcher]:
        """All patchers, for the memory manager."""
        return [patcher for patcher in (self.patcher, self.head_patcher) if patcher is not None]

    def encode(
        self,
        prompt: Prompt,
        *,
        device: torch.device | str | None = None,
        store_device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> LayerStates:
        """Like `Backbone.encode`, on the patcher's device; states go to ComfyUI's intermediate device."""
        return self.encode_many([prompt], device=device, store_device=store_device, progress=progress)[0]

    def encode_many(
        self,
        prompts: Sequence[Prompt],
        *,
        device: torch.device | str | None = None,
        store_device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> list[LayerStates]:
        """Like `Backbone.encode_many`, as `encode` does it. A model that does not fit streams once for a pass."""
        if not prompts:
            return []
        store = torch.device(store_device or comfy.model_management.intermediate_device())
        compute = torch.device(device or self.patcher.load_device)
        needed = encode_bytes(self.model.config, prompts, self._item, stored=store == compute)
        load_models([self.patcher], needed)
        return self.backbone.encode_many(
            prompts, device=compute, store_device=store, progress=interruptible_progress(progress)
        )

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> str:
        """Like `Backbone.generate`. A model that does not fit streams all its weights for every token."""
        load_models(self.get_models(), generate_bytes(self.model.config, prompt, max_new_tokens, self._item))
        return self.backbone.generate(
            prompt,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            device=torch.device(device or self.patcher.load_device),
            progress=interruptible_progress(progress),
        )

    def generate_json(
        self,
        prompt: Prompt,
        schema: Mapping[str, Any],
        *,
        seeds: Sequence[int] = (0,),
        words: int = 600,
        temperature: float = 0.0,
        device: torch.device | str | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """Like `Backbone.generate_json`. A model that does not fit streams its weights once for a token of all."""
        from ..squeeze_core.mllm.constrained import fewest_tokens

        longest = fewest_tokens(schema) + words
        needed = generate_bytes(self.model.config, prompt, longest, self._item, max(1, len(seeds)))
        load_models(self.get_models(), needed)
        return self.backbone.generate_json(
            prompt,
            schema,
            seeds=seeds,
            words=words,
            temperature=temperature,
            device=torch.device(device or self.patcher.load_device),
            progress=interruptible_progress(progress),
        )


class HostedDLA:
    """An adapter's DLA and projector under the memory manager (socket SQUEEZE_DLA)."""

    def __init__(self, aggregator: Aggregator, config: AdapterConfig):
        self.module = aggregator
        self.config = config
        self.dtype = next(parameter.dtype for parameter in aggregator.parameters())
        self.patcher = host(aggregator)

    @classmethod
    def from_adapter(cls, adapter: Adapter) -> HostedDLA:
        return cls(adapter.aggregator, adapter.config)

    def is_dynamic(self) -> bool:
        """As of `HostedMLLM`."""
        return _is_dynamic(self.patcher)

    def aggregate(self, states: LayerStates, **options: Any) -> tuple[torch.Tensor, LayerWeights]:
        """Context [tokens, context] on the intermediate device, and what each layer gave.

        options: those of `Aggregator.forward`. Raises `SqueezeError` when the states come from another MLLM.
        """
        self.config.check_states(states.model_id)
        load_models([self.patcher], aggregate_bytes(states, self.dtype.itemsize))
        there = states.to(self.patcher.load_device, self.dtype)
        comfy.model_management.throw_exception_if_processing_interrupted()
        with torch.no_grad():
            context, weights = self.module(there.states, there.image_mask, **options)
        check_finite(context, "The adapter's aggregator gave a context", DLA_ADVICE)
        return context.to(comfy.model_management.intermediate_device()), weights

    def pooled_vector(self, context: torch.Tensor) -> torch.Tensor:
        """The aligner's pooled vector [1, width] of a context [tokens, context], where that lies."""
        load_models([self.patcher], 8 * context.numel() * self.dtype.itemsize)
        with torch.no_grad():
            return self.module.vector(context.to(self.patcher.load_device, self.dtype)).to(context.device)


def _is_dynamic(patcher: comfy.model_patcher.ModelPatcher) -> bool:
    return getattr(patcher, "is_dynamic", lambda: False)()  # older patchers lack it


def _body_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """The model without its head, and the head; or the whole and None where they share weights."""
    head_of: Callable | None = getattr(model, "get_output_embeddings", None)
    head, body = (head_of() if head_of else None), getattr(model, "base_model", model)
    if head is None or body is model:
        return model, None
    in_body, in_head, everything = ({id(p) for p in part.parameters()} for part in (body, head, model))
    apart = in_head and not in_body & in_head and in_body | in_head == everything
    return (body, head) if apart else (model, None)


# Two nodes that name the same file share one model; it goes when the last of them lets go of it.
_live: weakref.WeakValueDictionary[tuple, HostedMLLM] = weakref.WeakValueDictionary()


def load_mllm(folder: str | Path, weight_dtype: str = "default", device: Device = "default") -> HostedMLLM:
    """Load an MLLM from a folder of the disk, or give the one that is loaded from the same files already.

    weight_dtype: see `squeeze_core.mllm.load`. device: one of `DEVICES`. Raises `SqueezeError`.
    """
    folder = Path(folder)
    key = (str(folder.resolve()), file_stamps(folder), weight_dtype, device, str(compute_device(device)))
    hosted = _live.get(key)
    if hosted is None:
        from ..squeeze_core.mllm.loading import load

        hosted = _live[key] = HostedMLLM(load(folder, weight_dtype, device="cpu"), device)
    return hosted


def file_stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """(name, bytes, time of the last change) of each file in a folder."""
    files = [file for file in sorted(folder.glob("*")) if file.is_file()]
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
