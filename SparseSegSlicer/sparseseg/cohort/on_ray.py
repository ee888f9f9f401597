"""Actors of a Ray cluster that segment: one of this computer that is made for the run, or one that is there already.

Ray does not try anything again by itself: the driver counts the tries. An actor gets a volume only once it has said that it is ready, so none waits
for a node that is gone; an actor that dies is replaced, wherever the cluster has room. Nothing is sent to Ray's makers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..contract.child import worker_environment
from ..contract.errors import PackageError, SparseSegError, WorkerError
from ..contract.folders import PrivateFolder
from .actors import Answer, Servant, Setting, Task, count_of, error_json, error_of, memory_gone

_SHORT_TEMP = None if sys.platform == "win32" else "/tmp"  # the paths of Ray's sockets must be short, which macOS's own folder is not
_STARTING_S = 60.0  # without any actor that is ready, until the user is told
_MOST_FALSE_STARTS = 3
_KNOCK_S = 20.0


def is_installed() -> bool:
    try:
        import ray  # noqa: F401
    except ImportError:
        return False
    return True


class _Actor:
    """What lives in a process of the cluster. Not even its own failure is raised there, as Ray would log it."""

    def __init__(self, setting: dict[str, Any]) -> None:
        self._servant: Servant | None = None
        self._failed: dict[str, Any] = {}
        try:
            self._servant = Servant(Setting(**setting))
        except SparseSegError as error:
            self._failed = error_json(error)

    def ready(self) -> dict[str, Any]:
        return {"failed": self._failed} if self._servant is None else {"ready": self._servant.place()}

    def answer(self, task: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        assert self._servant is not None
        return self._servant.answer(Task(**task))


@dataclass(eq=False)
class _Hand:
    """An actor as the driver knows it: `ref` is what it was asked, `task` what it works on."""

    actor: Any
    ref: Any = None
    task: Task | None = None
    place: tuple[str, int] | None = None


class RayActors:
    """As actors.Actors says."""

    def __init__(self, setting: Setting, address: str, count: int, say: Callable[[str], None]) -> None:
        """address: of a cluster, or empty: one that is made here and goes in the end; count: how many actors, 0: one a GPU, else one a core.
        Raises PackageError without Ray, WorkerError where there is no such cluster."""
        self._ray, self._say = _ray(), say
        self._folder: PrivateFolder | None = None
        self._hands: list[_Hand] = []
        self._false_starts = 0
        self._idle_s = 0.0
        try:
            self._connect(address)
            found = self._ray.cluster_resources()
            gpus, cores = int(found.get("GPU", 0)) if setting.device == "auto" else 0, int(found.get("CPU", 1))
            count = count_of(count, gpus, cores)
            self._kind = self._kind_of(setting, count, gpus, cores)
            self._hands = [self._hired() for _ in range(count)]
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
        if address:
            options["address"] = address
        else:
            self._folder = PrivateFolder(_SHORT_TEMP)
            options |= {"include_dashboard": False, "_temp_dir": str(self._folder.path)}
        try:
            _knock(address)
            with _kept_signals(), _elsewhere(self._folder), _environment():
                self._ray.init(**options)
            _hush()
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"the Ray cluster at {address}" if address else "a Ray cluster on this computer"
            first = next(iter(str(error).splitlines()), "")
            raise WorkerError(f"There is no way to {where} ({first:.200}).", "Check the address with `ray status`, or use --local.") from error

    def _kind_of(self, setting: Setting, count: int, gpus: int, cores: int) -> Callable[[], Any]:
        if gpus:
            share = 1 / -(-count // gpus)  # several share a GPU where more are asked for than there are
            options: dict[str, Any] = {"num_gpus": share, "num_cpus": 0}
        else:
            threads = max(1, cores // count)
            options = {"num_cpus": threads, "scheduling_strategy": "SPREAD"}
            setting = Setting(**{**asdict(setting), "threads": threads})
        kind = self._ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **options)
        return lambda: kind.remote(asdict(setting))

    def _hired(self) -> _Hand:
        actor = self._kind()
        return _Hand(actor, actor.ready.remote())

    def free(self) -> list[tuple[str, int]]:
        return [hand.place for hand in self._hands if hand.ref is None and hand.place]

    def submit(self, task: Task) -> None:
        hand = next(hand for hand in self._hands if hand.ref is None)
        hand.task, hand.ref = task, hand.actor.answer.remote(asdict(task))

    def wait(self, timeout_s: float) -> list[Answer]:
        asked = {hand.ref: hand for hand in self._hands if hand.ref is not None}
        refs, _ = self._ray.wait(list(asked), num_returns=1, timeout=timeout_s) if asked else ([], [])
        if refs:  # whatever else has come by now
            refs, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        answers: list[Answer] = []
        for ref in refs:
            answers += self._take(asked[ref])
        self._tell_if_idle(timeout_s)
        return answers

    def _take(self, hand: _Hand) -> list[Answer]:
        task, ref, hand.task, hand.ref = hand.task, hand.ref, None, None
        try:
            said = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._replaced(hand, task, error)
        if task is None:
            if "failed" in said:
                raise error_of(said["failed"])
            hand.place, self._false_starts = (said["ready"][0], said["ready"][1]), 0
            return []
        kind, result = said
        if kind == "died":  # what failed unexpectedly may have left its process unfit
            self._renew(hand)
        return [Answer(task.name, kind, result)]

    def _replaced(self, hand: _Hand, task: Task | None, error: Exception) -> list[Answer]:
        """By a new one. Raises WorkerError where they die before they have begun."""
        self._false_starts += task is None
        lacked = isinstance(error, self._ray.exceptions.OutOfMemoryError)
        gone = WorkerError(f"The actor that segmented it died{_where(hand)}.", "Its node may be gone, or short of memory.")
        if self._false_starts >= _MOST_FALSE_STARTS * len(self._hands):
            raise WorkerError(f"Ray's actors die before they begin ({type(error).__name__}).", "Run sparseseg doctor on the cluster's nodes.")
        self._renew(hand)
        return [Answer(task.name, "died", error_json(memory_gone() if lacked else gone))] if task else []

    def _renew(self, hand: _Hand) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(hand.actor)
        self._hands[self._hands.index(hand)] = self._hired()

    def _tell_if_idle(self, waited_s: float) -> None:
        """Nobody has begun for long: the cluster has no room, or brings nodes up."""
        self._idle_s = 0.0 if any(hand.place for hand in self._hands) else self._idle_s + waited_s
        if self._idle_s > _STARTING_S:
            self._idle_s = 0.0
            self._say("waiting for the cluster: none of its actors has begun; `ray status` says what it lacks")

    def close(self) -> None:
        self._hands = []
        with _kept_signals():
            self._ray.shutdown()
        if self._folder is not None:
            self._folder.remove()


def _hush() -> None:
    """What Ray says of nodes that died would stand on stdout, which is for the result. There is no public way to it."""
    with contextlib.suppress(ImportError):
        from ray._private import worker

        if hasattr(worker, "_worker_logs_enabled"):
            worker._worker_logs_enabled = False


def _knock(address: str) -> None:
    """Ray itself tries for minutes, and cannot be interrupted meanwhile. Raises OSError where nobody answers."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


def _where(hand: _Hand) -> str:
    return f" on {hand.place[0]}" if hand.place else ""


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before it is loaded
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise PackageError("Ray, which clusters need, is not installed.", "Install it: pip install 'sparseseg[cohort]', or use --local.") from error
    return ray


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Ray takes signals for itself; whoever heard them before goes on hearing them."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _elsewhere(folder: PrivateFolder | None) -> Iterator[None]:
    """Ray lets its processes look for modules where the driver runs, which is often the patients' folder: nowhere but in an empty one."""
    before = Path.cwd()
    with contextlib.ExitStack() as held:
        os.chdir(folder.path if folder else held.enter_context(PrivateFolder()))
        try:
            yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Of the processes that Ray starts here: they find this package wherever it lies, and no module where they run."""
    before = dict(os.environ)
    os.environ.update({key: value for key, value in worker_environment().items() if before.get(key) != value})
    try:
        yield
    finally:
        for key in os.environ.keys() - before.keys():
            del os.environ[key]
        os.environ.update(before)
