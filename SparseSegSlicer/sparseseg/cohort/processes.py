"""Processes that train together, as torchrun starts them: each has the whole network and a part of every batch; gradients are averaged.

One process is the same with nothing to agree on. Where one of several ends, the others notice in the next step, and end with a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..contract.errors import WorkerError

_PATIENCE = timedelta(hours=24)  # others wait while one prepares volumes


class Processes:
    """rank: of this one, of `count`; leads: whether it works for the others of its computer."""

    def __init__(self, rank: int = 0, count: int = 1, local: int = 0) -> None:
        self.rank, self.count = rank, count
        self.leads, self._leader = local == 0, rank - local

    @property
    def is_first(self) -> bool:
        """It alone shows and writes."""
        return self.rank == 0

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Makes them, in place, the means over all processes."""
        if self.count > 1:
            together = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
            with _noticing():
                dist.all_reduce(together)
            for tensor, part in zip(tensors, (together / self.count).split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def most(self, *values: float) -> list[float]:
        """Of each value, the largest that any process gives."""
        return self._reduced(torch.tensor(values, dtype=torch.float64), dist.ReduceOp.MAX).tolist() if self.count > 1 else list(values)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, float64 on the CPU."""
        return self._reduced(values.double(), dist.ReduceOp.SUM) if self.count > 1 else values.double()

    def same(self, value: Any) -> Any:
        """What the first process gives, for all."""
        return self._gathered(value)[0]

    def leaders(self, value: Any) -> Any:
        """What the process gives that leads on this computer."""
        return self._gathered(value)[self._leader]

    def _gathered(self, value: Any) -> list[Any]:
        found: list[Any] = [value] * self.count
        if self.count > 1:
            with _noticing():
                dist.all_gather_object(found, value)
        return found

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        on_device = values.float().cuda() if dist.get_backend() == "nccl" else values
        with _noticing():
            dist.all_reduce(on_device, how)
        return on_device.double().cpu()


@contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started with this one, and the device of this one, which `device` names where there is one process. Raises
    WorkerError."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(), device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = f"cuda:{local}" if device in ("auto", "cuda") and torch.cuda.is_available() else "cpu" if device == "auto" else device
    if own.startswith("cuda"):
        torch.cuda.set_device(own)
    with _noticing():
        dist.init_process_group("nccl" if own.startswith("cuda") else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), count, local), own
    finally:
        dist.destroy_process_group()


@contextmanager
def _noticing() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise WorkerError(
            f"Another process of this training ended, or cannot be reached ({str(error).splitlines()[0]:.120}).",
            "Start all of them again with --resume.",
        ) from error
