"""The device that a session computes on, chosen by a thread of its own: loading torch and trying a convolution take seconds.

Growing needs neither.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..prior import compiled

if TYPE_CHECKING:
    from ..network.device import Compute

_KERNELS_S = 5.0  # for growing's compiled kernels; compiling them the first time on a machine takes longer
_LOOK_S = 0.05  # between two looks at the host


class DeviceChoice:
    """`start` begins, `compute` waits for it; what loading torch or `device.choose` raised is raised there."""

    def __init__(self, requested: str = "auto", chosen: Compute | None = None) -> None:
        self._requested, self._compute = requested, chosen
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if that is not done: it takes turns with what else runs, so not before the job is open."""
        if self._compute is None and self._thread is None:
            self._thread = threading.Thread(target=self._choose, name="device", daemon=True)
            self._thread.start()

    def _choose(self) -> None:
        try:
            compiled.wait(_KERNELS_S, lambda: None)  # growing answers first, and loading torch beside it would slow both
            from ..network import device

            self._compute = device.choose(self._requested)
        except BaseException as failure:
            self._failure = failure
        else:
            self._rehearse(self._compute)

    def _rehearse(self, compute: Compute) -> None:
        """What is loaded or compiled at first use, while nobody waits for it."""
        try:
            from ..network.trainer import load_optimizer
            from ..prior.rehearsal import rehearse

            load_optimizer()
            rehearse(compute.device, compute.dtype)
        except Exception as error:  # whoever needs it will say so
            logging.getLogger("sparseseg").warning("rehearsal: %s", error)

    @property
    def known(self) -> Compute | None:
        """The device, where it is chosen already."""
        return self._compute

    def compute(self, tick: Callable[[], None] = lambda: None) -> Compute:
        """The device. tick is called while it is waited for, and may raise. Raises DeviceError, PackageError."""
        self.start()
        while self._compute is None and self._failure is None:
            tick()
            time.sleep(_LOOK_S)
        if self._failure is not None:
            raise self._failure
        assert self._compute is not None
        if self._thread is not None:
            from ..network import device

            device.use_cores()  # for this thread: OpenMP keeps their number for each, and another one has chosen the device
        return self._compute

    def replace(self, compute: Compute) -> None:
        """Go on with another device."""
        self._compute = compute
