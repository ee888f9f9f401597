"""Child processes of this computer that segment: one that dies is replaced, and its volume is told of."""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..contract.child import Child
from ..contract.errors import WorkerError
from .actors import Answer, Setting, Task, error_json, error_of

_COMMAND = (sys.executable, "-u", "-m", "sparseseg.cohort.child")
_MOST_FALSE_STARTS = 3  # in a row
_LAST_S = 5.0


class _Worker:
    """One of them. What it says goes to `heard`, None when it has ended."""

    def __init__(self, setting: Setting, heard: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]]) -> None:
        self.setting, self._heard = setting, heard
        self.place: tuple[str, int] | None = None  # once it is ready
        self.task: Task | None = None
        self._child = Child(_COMMAND)
        for target in (self._listen, self._drain):
            threading.Thread(target=target, name=f"child {target.__name__}", daemon=True).start()
        self.say(asdict(setting))

    @property
    def is_free(self) -> bool:
        return self.place is not None and self.task is None

    def say(self, data: dict[str, Any]) -> None:
        pipe = self._child.process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # it is gone: _listen says so
            pipe.write(json.dumps(data).encode("ascii") + b"\n")
            pipe.flush()

    def _listen(self) -> None:
        pipe = self._child.process.stdout
        assert pipe is not None
        for line in pipe:
            with contextlib.suppress(ValueError):
                self._heard.put((self, json.loads(line)))
        self._child.wait()
        self._heard.put((self, None))

    def _drain(self) -> None:
        """What libraries print is nobody's: it may name files."""
        pipe = self._child.process.stderr
        assert pipe is not None
        while pipe.read(1 << 16):
            pass

    def how_it_ended(self) -> str:
        code = self._child.poll()
        if code == -9:
            return "was killed, perhaps for lack of memory"
        return f"ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"

    def kill(self) -> None:
        self._child.kill()
        self._child.wait(_LAST_S)


class Children:
    """As actors.Actors says."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        """One process for each. Raises WorkerError where none can be started."""
        self._heard: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._false_starts = 0
        self._workers: list[_Worker] = []
        try:
            for setting in settings:
                self._workers.append(_Worker(setting, self._heard))
        except OSError as error:
            self.close()
            raise WorkerError(f"No process could be started ({error.strerror or error}).", "Close other programs.") from error

    def free(self) -> list[tuple[str, int]]:
        return [worker.place for worker in self._workers if worker.is_free and worker.place]

    def submit(self, task: Task) -> None:
        worker = next(worker for worker in self._workers if worker.is_free)
        worker.task = task
        worker.say(asdict(task))

    def wait(self, timeout_s: float) -> list[Answer]:
        answers: list[Answer] = []
        with contextlib.suppress(queue.Empty):
            answers += self._take(*self._heard.get(timeout=timeout_s))
            while True:
                answers += self._take(*self._heard.get_nowait())
        return answers

    def _take(self, worker: _Worker, said: dict[str, Any] | None) -> list[Answer]:
        if worker not in self._workers:
            return []
        if said is None:
            return self._replaced(worker)
        if "failed" in said:
            raise error_of(said["failed"])
        if "ready" in said:
            worker.place, self._false_starts = (said["ready"][0], said["ready"][1]), 0
            return []
        task, worker.task = worker.task, None
        if said["kind"] == "died":  # what failed unexpectedly may have left its process unfit
            self._renew(worker)
        return [Answer(task.name, said["kind"], said["result"])] if task else []

    def _replaced(self, worker: _Worker) -> list[Answer]:
        """By a new one. Raises WorkerError where they die before they have begun."""
        self._false_starts += worker.place is None
        reason = f"The process that segmented it {worker.how_it_ended()}."
        if self._false_starts >= _MOST_FALSE_STARTS:
            raise WorkerError(f"Processes that should segment end before they begin: the last {worker.how_it_ended()}.", "Run sparseseg doctor.")
        self._renew(worker)
        error = WorkerError(reason, "Use fewer actors, or a computer with more memory.")
        return [Answer(worker.task.name, "died", error_json(error))] if worker.task else []

    def _renew(self, worker: _Worker) -> None:
        worker.kill()
        self._workers[self._workers.index(worker)] = _Worker(worker.setting, self._heard)

    def close(self) -> None:
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.kill()
