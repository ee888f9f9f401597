"""No room on the disk, no memory: said in words that are true, and when there is room again all goes on."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .deaths import LONG, OPERATIONS, order
from .engine import Engine, verdict
from .painter import Painter
from .trial import Broken, Trial

FAILING = (("write", "full"), ("write", "fail"), ("fsync", "fail"), ("rename", "fail"), ("unlink", "fail"))
REFUSALS = [(operation, *how) for operation in ("update, whole", "update, box", "result", "open") for how in FAILING]
_TMPFS = "3m"
_MIB = 2**20
_WATCHDOG_S = 900.0  # within which a worker ends whose threads could not even start, or spin, on a busy machine


def disk_refuses_every_call(trial: Trial) -> None:
    """For n = 1, 2, ...: the n-th write, fsync, rename or unlink of a command fails with a full disk, in one worker that lives on."""
    operation, call, deed = REFUSALS[trial.number % len(REFUSALS)]
    before, attacked = OPERATIONS[operation]
    painter, orders = Painter(trial), trial.folder / "orders"
    done = Path(f"{orders}.done")
    engine = Engine(trial, orders)
    painter.heard(engine.open(painter.folder))
    before(engine, painter)
    for number in itertools.count(1, 4 if trial.quick else 1):
        done.unlink(missing_ok=True)
        order(orders, f"{call} {number} {deed}")
        mark = len(engine.events)
        attacked(engine, painter)
        time.sleep(0.1)
        engine.rest()
        orders.unlink()
        if not done.exists():
            break
        trial.tried += 1
        try:
            _check_told(painter, engine, mark)
            before(engine, painter) if operation == "open" else None
        except Broken as error:
            trial.broke(f"{operation}, {call} {number} refused ({deed}): {error}")
            break
    trial.require(engine.end() == 0, f"{operation}, after {call} was refused: {engine.last}")
    painter.check_recovery()


def _check_told(painter: Painter, engine: Engine, mark: int) -> None:
    """What was said since `mark` is true; and the last update is welcome now that there is room."""
    said = engine.events[mark:]
    for event in said:
        painter.heard(event)
        painter.trial.require(event.get("code") != "internal", f"not a sentence for people: {event.get('sentence')}")
    painter.check_strokes()
    painter.check_words(said)
    last = painter.revision
    if last > 1 and engine.of(f"u{last}", "error"):
        engine.send("update", f"again{last}", **painter.again(last))
        answer = engine.verdict(f"again{last}")
        painter.trial.require(verdict(answer) == "taken", f"with room again, the update is refused: {answer.get('sentence')}")
        painter.heard(answer)
        painter.check_strokes()
    if not engine.of("open", "ready"):
        engine.open(painter.folder, "open")


def mounting() -> str:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting a small disk needs root on Linux"
    folder = Path("/tmp") / f"torture-mount-{os.getpid()}"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "torture", str(folder)], capture_output=True, check=False).returncode == 0
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)
    finally:
        folder.rmdir()
    return "" if mounted else "mounting is not allowed here"


def full_disk(trial: Trial) -> None:
    """A real disk of some megabytes, filled up by another program but for some bytes, again and again."""
    disk = trial.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_TMPFS}", "torture", str(disk)], check=True)
    try:
        painter = Painter(trial, "disk/job")
        engine = Engine(trial, copied=True)
        painter.heard(engine.open(painter.folder))
        for _ in range(3 if trial.quick else 8):
            train = trial.rng.random() < 0.3
            fields = {} if train else painter.paint()
            ballast = _fill(disk, leave=trial.rng.choice((0, 4096, 8192, 20_000, 60_000)))
            mark, name = len(engine.events), "t" if train else f"u{painter.revision}"
            engine.send("train" if train else "update", name, **fields)
            engine.answer(name, "result", "error") if train else engine.verdict(name)
            time.sleep(0.1)
            engine.rest()
            ballast.unlink()
            trial.tried += 1
            _check_told(painter, engine, mark)
        trial.require(engine.end() == 0, f"after a full disk: {engine.last}")
        painter.check_recovery()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def _fill(disk: Path, leave: int) -> Path:
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        free = shutil.disk_usage(disk).free - leave
        for _ in range(max(free, 0) // 4096):
            try:
                file.write(b"x" * 4096)
            except OSError:
                break
    return ballast


def limits() -> str:
    try:
        import resource
    except ImportError:
        return "needs limits of resources"
    return "" if hasattr(resource, "prlimit") else "needs prlimit (Linux)"


def short_of_memory(trial: Trial) -> None:
    """At a random moment the worker may take no more memory than it has and a little: a sentence, or an end; never lost strokes."""
    import resource

    painter = Painter(trial, shape_kji=(24, 48, 48), refine=trial.rng.random() < 0.5)
    engine = Engine(trial)
    if trial.rng.random() < 0.7:
        painter.heard(engine.open(painter.folder))
        engine.send("train", "t", settings=LONG)
        if trial.rng.random() < 0.7:
            engine.until(lambda e: e.get("stage") == trial.rng.choice(("prior", "training", "starting")))
    time.sleep(trial.rng.random() * 0.5)
    room = trial.rng.choice((1, 4, 16, 64, 256)) * _MIB
    try:
        limit = int(Path(f"/proc/{engine.pid}/statm").read_text().split()[0]) * resource.getpagesize() + room
        resource.prlimit(engine.pid, resource.RLIMIT_AS, (limit, limit))
    except (OSError, ProcessLookupError):
        return
    trial.tried += 1
    for _ in range(3):
        fields = painter.paint()
        engine.send("update", f"u{painter.revision}", **fields)
        time.sleep(0.1)
    engine.send("finish", "f")
    engine.send("cancel", "c")
    try:
        engine.until(lambda e: e["id"] == "c" and e["event"] == "ready", _WATCHDOG_S)
        engine.end(_WATCHDOG_S)
    finally:
        engine.kill()
    for event in engine.events:
        painter.heard(event)
        trial.require(event["event"] not in ("no event", "half a line") or engine.process.returncode != 0, f"no event: {event.get('sentence')}")
    painter.check_words(engine.events)
    painter.check_recovery()
