"""A worker that is killed or stopped: at a random moment of each phase, and at every call that changes the disk."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from phantoms import two_organs
from sparseseg.contract.errors import JobError
from sparseseg.contract.job import Job, remove_job

from .engine import Engine, environment
from .painter import SHAPE_KJI, Painter
from .sabotage import CALLS
from .trial import Broken, Trial

LONG = {"steps": 100_000, "estimate": False}
# phase -> (settings, what is seen when it has begun: a stage or a preview's source, seconds that it may take)
_IN_A_RUN = {
    "growing": ({}, "prior", 0.1),
    "refining": ({"refine": True}, "growing", 0.5),
    "training": ({"steps": 300}, "training", 1.0),
    "estimating": ({"steps": 60, "estimate": True}, "estimating", 0.3),
    "predicting": ({}, "predicting", 0.05),
    "saving": ({}, "saving", 0.05),
}
PHASES = ("opening", "idle", "update", "update in training", *_IN_A_RUN)
LONG_STOP_S = 35.0  # longer than any step may take before the worker ends itself


def killed(trial: Trial) -> None:
    phase = PHASES[trial.number % len(PHASES)]
    painter = Painter(trial, **_IN_A_RUN.get(phase, ({},))[0])
    engine = Engine(trial, copied=phase != "opening")
    time.sleep(trial.rng.random() * _reach(phase, engine, painter))
    engine.kill()
    trial.tried += 1
    for event in engine.events:
        painter.heard(event)
    try:
        painter.check_words(engine.events)
        painter.check_recovery(goes_on=trial.rng.random() < 0.3)
    except Broken as error:
        raise Broken(f"killed while {phase}: {error}") from error


def _reach(phase: str, engine: Engine, painter: Painter) -> float:
    """Bring the worker into a phase; the seconds that it lasts, about."""
    if phase == "opening":
        engine.next(60)
        engine.send("open", "open", job=str(painter.folder), device="cpu", protocol=4)
        return 0.2
    engine.open(painter.folder)
    if phase in _IN_A_RUN:
        seen, seconds = _IN_A_RUN[phase][1:]
        engine.send("train", "t")
        engine.until(lambda e: seen in (e.get("stage"), e.get("source")) or e["event"] in ("result", "error"))
        return seconds
    if phase == "update in training":
        engine.send("train", "t", settings=LONG)
        engine.until(lambda e: e.get("stage") == "training")
    if phase != "idle":
        for _ in range(painter.rng.choice((1, 2))):
            fields = painter.paint()
            engine.send("update", f"u{painter.revision}", **fields)
    return 0.15


def stopped(trial: Trial) -> None:
    """Stopped and continued, again and again, in a run that is corrected meanwhile: nothing is lost, and nothing is said to be stuck."""
    _stop_a_run(trial, [trial.rng.choice((0.02, 0.1, 0.5)) for _ in range(10 if trial.quick else 20)])


def stopped_for_long(trial: Trial) -> None:
    """As by a laptop that sleeps, a debugger, a frozen container: longer than the watchdog's patience."""
    _stop_a_run(trial, [LONG_STOP_S])


def _stop_a_run(trial: Trial, seconds: list[float]) -> None:
    painter = Painter(trial)
    engine = Engine(trial)
    painter.heard(engine.open(painter.folder))
    engine.send("train", "t", settings=LONG)
    if trial.rng.random() < 0.5 or len(seconds) == 1:
        engine.until(lambda e: e.get("stage") == "training")
    for pause in seconds:
        time.sleep(trial.rng.random() * 0.2)
        if trial.rng.random() < 0.5:
            _send_update(engine, painter)
        engine.signal("SIGSTOP")
        time.sleep(pause)
        engine.signal("SIGCONT")
        trial.tried += 1
    engine.until(lambda e: e.get("stage") == "training")
    engine.send("finish", "f")
    end = engine.answer("t", "result", "error")
    trial.require(end["event"] == "result", f"stopped for {max(seconds):g} s, and then: {end.get('sentence')}")
    for number in [n for n in painter.sent if n > 1]:
        engine.verdict(f"u{number}")
    trial.require(engine.end() == 0, f"after it was stopped: {engine.last}")
    for event in engine.events:
        painter.heard(event)
    trial.require(painter.check_strokes() == painter.revision, "an update during the run was lost")
    painter.check_words(engine.events)
    painter.check_nothing_left(engine)


def _send_update(engine: Engine, painter: Painter, whole: bool | None = None) -> str:
    fields = painter.paint(whole)
    engine.send("update", f"u{painter.revision}", **fields)
    return f"u{painter.revision}"


# -- at every call that changes the disk -------------------------------------------------------------------------------


def _update(engine: Engine, painter: Painter, whole: bool) -> None:
    engine.verdict(_send_update(engine, painter, whole))


def _train(engine: Engine, painter: Painter) -> None:
    engine.send("train", "t")
    engine.answer("t", "result", "error")


def _nothing(engine: Engine, painter: Painter) -> None:
    pass


def _corrected(engine: Engine, painter: Painter) -> None:
    for _ in range(3):
        _update(engine, painter, whole=False)


def _reopen(engine: Engine, painter: Painter) -> None:
    """Opened again, where a dead session has left files."""
    for name in ("preview-0001-0001.npy", "preview-0001-0002.npy", ".dense.npy.4711.part"):
        (painter.folder / name).write_bytes(b"half")
    engine.open(painter.folder, "again")


Deed = Callable[[Engine, Painter], None]
# name -> (what is done before in peace, what is done under attack)
OPERATIONS: dict[str, tuple[Deed, Deed]] = {
    "update, whole": (_nothing, lambda engine, painter: _update(engine, painter, whole=True)),
    "update, box": (_corrected, lambda engine, painter: _update(engine, painter, whole=False)),
    "update, whole after boxes": (_corrected, lambda engine, painter: _update(engine, painter, whole=True)),
    "result": (_corrected, _train),
    "second result": (lambda engine, painter: (_train(engine, painter), _corrected(engine, painter))[1], _train),
    "open": (_nothing, _reopen),
}
SWEEPS = [(operation, call) for operation in OPERATIONS for call in CALLS]


def order(orders: Path, what: str) -> None:
    temporary = orders.with_suffix(".new")
    temporary.write_text(what)
    os.replace(temporary, orders)


def killed_at_every_call(trial: Trial) -> None:
    """For n = 1, 2, ...: a new job and worker, which ends at its n-th fsync, rename or unlink; until it is done before."""
    operation, call = SWEEPS[trial.number % len(SWEEPS)]
    before, attacked = OPERATIONS[operation]
    for number in itertools.count(1, 3 if trial.quick else 1):
        painter, orders = Painter(trial, f"job{number}"), trial.folder / f"orders{number}"
        engine = Engine(trial, orders, copied=True)
        engine.open(painter.folder)
        before(engine, painter)
        order(orders, f"{call} {number} die")
        with contextlib.suppress(Broken):  # no answer: it has ended
            attacked(engine, painter)
        if engine.process.poll() is None and engine.end() == 0:
            return
        engine.rest()
        trial.tried += 1
        for event in engine.events:
            painter.heard(event)
        try:
            painter.check_words(engine.events)
            painter.check_recovery()
        except Broken as error:
            trial.broke(f"{operation}, killed at {call} {number}: {error}")


MAKE = "from torture import sabotage, deaths; sabotage.obey({orders!r}); deaths.{deed}({folder!r}, {seed})"
MAKERS = [(deed, call) for deed in ("make", "remake", "remove") for call in CALLS]


def make(folder: str, seed: int) -> None:
    """A job of the phantom with this seed."""
    from phantoms import make_job

    make_job(Path(folder), two_organs(SHAPE_KJI, seed))


remake = make


def remove(folder: str, seed: int) -> None:
    remove_job(Path(folder))


def killed_in_making_or_removing(trial: Trial) -> None:
    """For n = 1, 2, ...: a job is made in a new folder, made in place of an older one, or removed, by a process that ends at its n-th call."""
    deed, call = MAKERS[trial.number % len(MAKERS)]
    for number in itertools.count(1):
        folder, orders = trial.folder / f"job{number}", trial.folder / f"orders{number}"
        if deed != "make":
            make(str(folder), 1)
        order(orders, f"{call} {number} die")
        code = MAKE.format(orders=str(orders), deed=deed, folder=str(folder), seed=2)
        ended = subprocess.run([sys.executable, "-c", code], env=environment(trial), cwd=trial.folder, capture_output=True, timeout=120, check=False)
        if ended.returncode == 0:
            return
        trial.tried += 1
        try:
            _check_made(trial, folder, (1, 2) if deed == "remake" else (2,) if deed == "make" else (1,))
        except (Broken, JobError) as error:
            trial.broke(f"{deed}, killed at {call} {number}: {error}")


def _check_made(trial: Trial, folder: Path, seeds: tuple[int, ...]) -> None:
    """A whole job of one of the phantoms, or none; and a job can be made there, and all of it removed."""
    try:
        job = Job.open(folder)
    except JobError as error:
        trial.require("holds no job" in str(error), f"neither a job nor none: {error}")
    else:
        with job:
            phantoms = [two_organs(SHAPE_KJI, seed) for seed in seeds]
            same = [(job.annotation() == p.annotation).all() and (job.image() == p.image).all() for p in phantoms]
            trial.require(any(same), "the job is a mixture of two")
    make(str(folder), 3)
    remove_job(folder)
    trial.require(not folder.exists(), f"removing leaves {[p.name for p in folder.iterdir()] if folder.exists() else ''}")
