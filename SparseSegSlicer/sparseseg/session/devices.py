"""The device that a session computes on, chosen by a thread of its own: loading torch and trying a convolution take seconds.

Growing needs neither, only its compiled kernels, which are loaded first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..prior import compiled

if TYPE_CHECKING:
    from ..network.device import Compute

_LOOK_S = 0.05  # between two looks at the host


class DeviceChoice:
    """`compute` waits for it; what `device.choose` raised is raised there."""

    def __init__(self, requested: str = "auto", chosen: Compute | None = None) -> None:
        self._requested, self._compute = requested, chosen
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        if chosen is None:
            self._thread = threading.Thread(target=self._choose, name="device", daemon=True)
            self._thread.start()

    def _choose(self) -> None:
        try:
            compiled.warm_up()
            from ..network import device
            from ..prior.rehearsal import rehearse

            chosen = device.choose(self._requested)
            rehearse(chosen.device, chosen.dtype)
            self._compute = chosen
        except BaseException as failure:
            self._failure = failure

    @property
    def known(self) -> Compute | None:
        """The device, where it is chosen already."""
        return self._compute

    def compute(self, tick: Callable[[], None] = lambda: None) -> Compute:
        """The device. tick is called while it is waited for, and may raise. Raises DeviceError."""
        while self._thread is not None and self._thread.is_alive():
            tick()
            self._thread.join(_LOOK_S)
        if self._failure is not None:
            raise self._failure
        assert self._compute is not None
        return self._compute

    def replace(self, compute: Compute) -> None:
        """Go on with another device."""
        self._compute = compute
