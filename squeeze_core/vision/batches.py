"""Work through a list in batches as large as memory allows, which is found out by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from ..errors import SqueezeError

Item = TypeVar("Item")
Out = TypeVar("Out")
# Called with (what, done, total). May raise to stop.
Progress = Callable[[str, int, int], None]

FIRST = 64


def in_batches(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[Out]],
    *,
    what: str = "pictures",
    first: int = FIRST,
    progress: Progress | None = None,
) -> list[Out]:
    """`work` on all items, in their order. Out of memory halves the batch, for good; at 1 it is an error.

    Raises `SqueezeError` when not even one item fits.
    """
    done: list[Out] = []
    size = first
    while len(done) < len(items):
        try:
            done.extend(work(items[len(done) : len(done) + size]))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise SqueezeError(
                    f"Memory does not suffice for a single one of the {what}. "
                    "Close other programs, or use --device cpu."
                ) from error
            size = max(1, min(size, len(items) - len(done)) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        if progress:
            progress(what, len(done), len(items))
    return done


def is_out_of_memory(error: BaseException) -> bool:
    """torch raises its own class on GPUs, and a plain RuntimeError on CPUs and some other devices."""
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or "out of memory" in str(error).lower()
