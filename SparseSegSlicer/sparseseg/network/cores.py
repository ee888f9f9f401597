"""Slabs side by side, one core each. Torch spreads a single operation over all cores instead, and for slices of a few ten thousand pixels its threads
spend more time meeting than working: on 2 cores that made a step two to five times as long as on one alone. A GPU works on slabs of a shape as one:
it waits for the launch of each kernel, and a single slice is done before the next one is launched."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from threading import Barrier
from typing import TypeVar

import torch

from . import device

_AHEAD = 16  # items whose results may wait at a time
T = TypeVar("T")
R = TypeVar("R")


class Cores:
    """Threads that share the cores; on a GPU, and with one core, everything runs in the thread that asks."""

    def __init__(self, count: int, at_once: int = 1) -> None:
        """at_once: how many items of a kind are best worked on as one."""
        self.at_once = at_once
        self._pool = ThreadPoolExecutor(count, "core") if count > 1 else None
        if self._pool is not None:
            together = Barrier(count)
            threads = max(1, device.usable_cores() // count)
            list(self._pool.map(_use_cores, [together] * count, [threads] * count))
            device.use_cores()  # of this thread: the last call counts for threads that are yet to come

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in the items' order; what work raises is raised here. A few items are worked on ahead of who takes the results."""
        if self._pool is None:
            yield from map(work, items)
            return
        rest = iter(items)
        while some := list(islice(rest, _AHEAD)):
            yield from self._pool.map(work, some)


def batches(items: Iterable[T], kind: Callable[[T], Hashable], at_once: int) -> list[list[T]]:
    """The items in lists of one kind each, of so many at most, to be worked on as one."""
    kinds: dict[Hashable, list[T]] = {}
    for item in items:
        kinds.setdefault(kind(item), []).append(item)
    return [alike[n : n + at_once] for alike in kinds.values() for n in range(0, len(alike), at_once)]


@cache
def cores_of(kind: str) -> Cores:
    """Those of a type of device (cpu, cuda, mps): the same for all who ask."""
    return Cores(min(device.usable_cores(), device.MOST_SLABS)) if kind == "cpu" else Cores(1, device.MOST_SLABS)


def _use_cores(together: Barrier, threads: int) -> None:
    """In this thread, so many of torch's. The first question makes torch set the thread up, which would undo what was set before."""
    torch.get_num_threads()
    torch.set_num_threads(threads)
    together.wait()  # until each thread has been here
