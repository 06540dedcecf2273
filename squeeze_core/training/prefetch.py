"""Batches made ahead of their use, by threads; their order is that of the steps, however many make them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


def prefetched(
    make: Callable[[Sequence[int]], T], wanted: Iterator[Sequence[int]], workers: int
) -> Generator[T, None, None]:
    """make(indices) for each of `wanted`, in order, up to `workers` + 1 of them ahead.

    Threads and not processes: decoding pictures releases the interpreter's lock, and a process forked from
    one that computes on a GPU breaks. Close the iterator to stop them.
    """
    if workers == 0:
        yield from map(make, wanted)
        return
    waiting: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batch")
    try:
        for indices in islice(wanted, workers + 1):
            waiting.append(pool.submit(make, indices))
        while waiting:
            ready = waiting.popleft().result()
            for indices in islice(wanted, 1):
                waiting.append(pool.submit(make, indices))
            yield ready
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
