"""MLLM and DLA live in ComfyUI's memory manager like the models that ComfyUI loads.

The two holders are what the sockets SQUEEZE_MLLM and SQUEEZE_DLA carry. Their `.patcher` is how the memory manager
finds them; `paging.py` says how.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import torch
from torch import nn

from ..squeeze_core.finite import DLA_ADVICE, check_finite
from ..squeeze_core.mllm.backbone import Backbone, Progress, Prompt
from ..squeeze_core.mllm.states import LayerStates
from .memory import aggregate_bytes, encode_bytes, generate_bytes
from .paging import Device, compute_device, host, interruptible_progress, is_dynamic, load_models

if TYPE_CHECKING:
    from ..squeeze_core.adapter import Adapter, AdapterConfig
    from ..squeeze_core.dla import Aggregator, LayerWeights


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
        return is_dynamic(self.patcher)

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
        return is_dynamic(self.patcher)

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
