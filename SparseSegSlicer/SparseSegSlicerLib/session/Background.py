"""Work that scales with the volume but needs neither scene nor Qt, in one thread; its outcome is handed over when the host polls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Tasks run one after the other. A task must touch no node and no widget: only arrays and files."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._tasks: deque[tuple[Future, Callable[[Any], None], Callable[[BaseException], None]]] = deque()

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None], failed: Callable[[BaseException], None]) -> None:
        """`done(outcome)` or `failed(error)` is called by a later `poll`, in its thread."""
        self._tasks.append((self._pool.submit(work), done, failed))

    def poll(self) -> None:
        while self._tasks and self._tasks[0][0].done():
            future, done, failed = self._tasks.popleft()
            error = future.exception()
            if error is None:
                done(future.result())
            else:
                failed(error)

    def forget(self) -> None:
        """Nothing that is under way is handed over any more."""
        for future, _, _ in self._tasks:
            future.cancel()
        self._tasks.clear()

    def close(self, wait: bool = False) -> None:
        self.forget()
        self._pool.shutdown(wait=wait, cancel_futures=True)
