"""The door to numba: a cache of the user's own, and answers without numba."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from sparseseg.prior import compiled
from sparseseg.prior.together import together


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "to be restored")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_the_cache_is_a_private_folder_of_the_user(fresh: Path) -> None:
    compiled._choose_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.is_dir() and fresh in folder.parents
    assert sys.platform == "win32" or folder.stat().st_mode & 0o077 == 0


def test_a_chosen_cache_is_kept(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    compiled._choose_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"


def test_without_numba_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "available", lambda: False)
    monkeypatch.setattr(compiled, "_kernels", None)
    assert not compiled.warm_up() and not compiled.ready() and compiled.kernels() is None


def test_together_keeps_the_order_and_ticks() -> None:
    calls: list[int] = []
    slow = threading.Event()

    def first(_: object) -> int:
        slow.wait(0.3)
        return 1

    assert together([first, lambda _: 2], lambda: calls.append(1)) == [1, 2]
    assert len(calls) >= 2


def test_together_stops_the_tasks_when_tick_raises() -> None:
    ended = threading.Event()

    def endless(look_up: object) -> None:
        try:
            while True:
                look_up()  # type: ignore[operator]
        finally:
            ended.set()

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        together([endless], stop)
    assert ended.is_set()
