"""Hooks that take each layer's state as it is made (section 3.2: F_0 ... F_M)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from .backbone import Progress


class LayerCapture:
    """What the hooks have seen so far.

    states: [layers + 1, tokens, hidden] of each prompt after a forward pass, without the padding that follows, in
        the dtype in which the model computes.
    """

    states: list[torch.Tensor]

    def __init__(
        self,
        layers: int,
        lengths: Sequence[int],
        store_device: torch.device | str,
        progress: Progress | None,
    ) -> None:
        self._count = layers + 1
        self._lengths = lengths
        self._device = store_device
        self._progress = progress

    def store(self, layer: int, hidden: torch.Tensor) -> None:
        """hidden: [prompts, tokens, hidden]. Written straight into place: no second copy of all states."""
        if layer == 0:
            shapes = [(self._count, length, hidden.shape[2]) for length in self._lengths]
            self.states = [torch.empty(shape, dtype=hidden.dtype, device=self._device) for shape in shapes]
        for own, row in zip(self.states, hidden, strict=True):
            own[layer].copy_(row[: own.shape[1]])
        if self._progress is not None:
            self._progress(layer + 1, self._count)


@contextmanager
def captured_layers(
    language_model: nn.Module,
    lengths: Sequence[int],
    store_device: torch.device | str,
    progress: Progress | None = None,
) -> Iterator[LayerCapture]:
    """Capture one forward pass of a decoder with `layers` and `norm`; the hooks go whatever happens.

    lengths: tokens of each prompt of the pass, what fills them up not counted.

    State 0 is the input of the first layer, state i the output of layer i, the last one the output of the
    final norm: what transformers calls `hidden_states`, bit for bit.
    """
    layers = list(language_model.layers)  # type: ignore[arg-type]
    capture = LayerCapture(len(layers), lengths, store_device, progress)

    def embedding(module, args, kwargs):
        capture.store(0, args[0] if args else kwargs["hidden_states"])

    def output_of(layer: int):
        # transformers before 4.54 returns a tuple from a layer, later ones the tensor.
        return lambda module, args, output: capture.store(layer, output[0] if isinstance(output, tuple) else output)

    handles = []
    try:
        handles.append(layers[0].register_forward_pre_hook(embedding, with_kwargs=True))
        # The last layer's own output is not a state: it becomes one after the final norm.
        for index, layer in enumerate(layers[:-1], start=1):
            handles.append(layer.register_forward_hook(output_of(index)))
        handles.append(language_model.norm.register_forward_hook(output_of(len(layers))))  # type: ignore[union-attr]
        yield capture
    finally:
        for handle in handles:
            handle.remove()
