"""Hosts that do not behave: that stop reading or close the pipe, that are two on one job, that are told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from phantoms import two_organs
from sparseseg import io
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.job import Job

from .deaths import LONG, MAKE, _send_update
from .engine import PATIENCE_S, Engine, environment, processes_left
from .painter import SHAPE_KJI, Painter
from .trial import Trial

ENDS_WITHIN_S = 30.0  # a worker that nobody hears; it has ten seconds, on a busy machine more


def reader_stops(trial: Trial) -> None:
    """The host leaves the pipe unread until it is full, and reads on; or dies without ever reading on."""
    painter = Painter(trial)
    engine = Engine(trial)
    painter.heard(engine.open(painter.folder))
    engine.send("train", "t", settings=LONG)
    engine.until(lambda e: e.get("stage") == "training")
    engine.reading.clear()
    junk = 2000
    for _ in range(junk):  # each is answered, in more than the pipe holds
        engine.raw(b"no message\n")
    for _ in range(3):
        _send_update(engine, painter)
    time.sleep(trial.rng.random())
    trial.tried += 1
    if trial.rng.random() < 0.5:
        engine.end(ENDS_WITHIN_S)  # Broken where it does not
        engine.reading.set()
    else:
        engine.reading.set()
        last = painter.revision
        engine.send("finish", "f")
        trial.require(engine.answer("t", "result", "error")["event"] == "result", f"after a pause of the reader: {engine.last}")
        engine.verdict(f"u{last}")
        trial.require(engine.end() == 0, engine.last)
        answered = sum(e.get("code") == "protocol" for e in engine.events)
        trial.require(answered == junk, f"{junk} bad lines, {answered} answers")
        trial.require(not [e for e in engine.events if e["event"] in ("no event", "half a line")], "a line was broken")
    for event in engine.rest():
        painter.heard(event)
    painter.check_words(engine.events)
    painter.check_recovery()


def reader_closes(trial: Trial) -> None:
    """The host closes its end of stdout and keeps stdin open: the work ends."""
    painter = Painter(trial)
    engine = Engine(trial)
    painter.heard(engine.open(painter.folder))
    if trial.rng.random() < 0.8:
        engine.send("train", "t", settings=LONG)
        if trial.rng.random() < 0.7:
            engine.until(lambda e: e.get("stage") == "training")
    engine.close_stdout()
    _send_update(engine, painter)
    _send_update(engine, painter)
    trial.tried += 1
    engine.wait(ENDS_WITHIN_S)
    painter.check_recovery()


def two_workers(trial: Trial) -> None:
    """Two open one job at once: one holds it, the other is told who; when that one dies, the other may."""
    painter = Painter(trial)
    engines = [Engine(trial), Engine(trial)]
    for engine in engines:
        engine.next(PATIENCE_S)
    for engine in engines:
        engine.send("open", "open", job=str(painter.folder), device="cpu", protocol=4)
    answers = [engine.answer("open", "ready", "error") for engine in engines]
    trial.tried += 1
    kinds = sorted(answer["event"] for answer in answers)
    trial.require(kinds == ["error", "ready"], f"two opened one job: {kinds}")
    holder, other = engines if answers[0]["event"] == "ready" else engines[::-1]
    refusal = other.of("open", "error")[0]
    trial.require(refusal["code"] == "job" and str(holder.pid) in refusal["sentence"], f"not told who holds it: {refusal['sentence']}")
    _send_update(holder, painter, whole=True)
    painter.heard(holder.verdict(f"u{painter.revision}"))
    other.send("update", "foreign", **painter.again(painter.revision))
    other.answer("foreign", "error")
    painter.check_strokes()
    holder.kill()
    painter.heard(other.open(painter.folder, "mine"))
    trial.require(other.of("mine", "ready"), f"its holder is dead, but it does not open: {other.last}")
    _send_update(other, painter)
    painter.heard(other.verdict(f"u{painter.revision}"))
    trial.require(other.end() == 0, other.last)
    painter.check_recovery()


def two_makers(trial: Trial) -> None:
    """Two processes make a job in one folder at once: what is there then is one of them, whole."""
    folder, orders = trial.folder / "job", trial.folder / "orders"
    seeds = (1, 2)
    codes = [MAKE.format(orders=str(orders), deed="make", folder=str(folder), seed=seed) for seed in seeds]
    makers = [subprocess.Popen([sys.executable, "-c", code], env=environment(trial), cwd=trial.folder, stderr=subprocess.PIPE) for code in codes]
    said = [maker.communicate(timeout=PATIENCE_S)[1].decode() for maker in makers]
    trial.tried += 1
    for maker, text in zip(makers, said, strict=True):
        trial.require(maker.returncode == 0 or "JobError" in text, f"a maker failed otherwise: {text[-300:]}")
    trial.require(any(maker.returncode == 0 for maker in makers), f"none of two made it: {said[0][-200:]}")
    with Job.open(folder) as job:
        phantoms = {seed: two_organs(SHAPE_KJI, seed) for seed in seeds}
        made = [s for s, p in phantoms.items() if (job.annotation() == p.annotation).all() and (job.image() == p.image).all()]
        trial.require(made, "the job is a mixture of two")
        trial.require(makers[seeds.index(made[0])].returncode == 0, "the job is that of the maker who was refused")


# -- the command line --------------------------------------------------------------------------------------------------


def _files(trial: Trial) -> tuple[Path, Path, np.ndarray]:
    """An annotation, the same with the two organs exchanged, and the first one's voxels; image.nrrd is beside them."""
    phantom = two_organs(SHAPE_KJI, 1)
    io.write_volume(trial.folder / "image.nrrd", phantom.image, phantom.geometry)
    first, second = trial.folder / "a.seg.nrrd", trial.folder / "b.seg.nrrd"
    io.write_annotation(first, phantom.annotation, phantom.geometry, phantom.classes)
    io.write_annotation(second, _exchanged(phantom.annotation), phantom.geometry, ClassTable.numbered(2, ["liver", "tumour"]))
    return first, second, phantom.annotation


def _exchanged(annotation: np.ndarray) -> np.ndarray:
    return np.array([0, 1, 3, 2], np.uint8)[annotation]


def _segment(trial: Trial, annotation: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    words = ["segment", "image.nrrd", annotation.name, "-o", output.name, "--steps", "2", "--device", "cpu", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "sparseseg", *words],
        env=environment(trial),
        cwd=trial.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _holds(output: Path, annotation: np.ndarray) -> bool:
    """Whether a result holds all that was painted."""
    dense = io.read_volume(output).array
    return bool((dense[annotation > 0] + 1 == annotation[annotation > 0]).all())


def two_commands(trial: Trial) -> None:
    """Two `segment` with one --job and different strokes: a result with exit code 0 holds its own strokes."""
    a, b, painted = _files(trial)
    outputs = [trial.folder / "a.nrrd", trial.folder / "b.nrrd"]
    first = _segment(trial, a, outputs[0], "--job", "job")
    time.sleep(trial.rng.random() * 2)
    second = _segment(trial, b, outputs[1], "--job", "job")
    said = [command.communicate(timeout=PATIENCE_S * 2)[1].decode() for command in (first, second)]
    trial.tried += 1
    for command, output, strokes, text in zip((first, second), outputs, (painted, _exchanged(painted)), said, strict=True):
        trial.require(command.returncode != 0 or _holds(output, strokes), "a result with exit code 0 has the other one's strokes")
        trial.require("Traceback" not in text, text[-300:])
        trial.require(command.returncode == 0 or not output.exists(), "a refused command left a result")
    trial.require(0 in (first.returncode, second.returncode), f"none of two was done: {said[0][-200:]} {said[1][-200:]}")
    _check_no_trace(trial, first, second)


ENDS = ("SIGTERM", "SIGHUP", "SIGINT", "SIGKILL")


def command_ended(trial: Trial) -> None:
    """`segment` is ended at a random moment: a whole result or none, no processes, no temporary folder (after SIGKILL: at the next start)."""
    a, _, painted = _files(trial)
    output = trial.folder / "out.nrrd"
    how = ENDS[trial.number % len(ENDS)]
    command = _segment(trial, a, output)
    time.sleep(trial.rng.random() * 6)
    with contextlib.suppress(ProcessLookupError):
        os.kill(command.pid, getattr(signal, how))
    text = command.communicate(timeout=PATIENCE_S)[1].decode()
    trial.tried += 1
    if command.returncode != -signal.SIGKILL:
        trial.require("Traceback" not in text, f"{how}: {text[-300:]}")
    trial.require(not output.exists() or _holds(output, painted), f"{how}: half a result")
    if command.returncode == -signal.SIGKILL:
        _grow_old(trial.temporary)
        again = _segment(trial, a, output)
        trial.require(again.communicate(timeout=PATIENCE_S) and again.returncode == 0, "after SIGKILL, the next command fails")
    _check_no_trace(trial, command)
    left = [p.name for p in trial.folder.iterdir() if p.name.endswith(".part") or p.name.startswith(".")]
    trial.require(not left, f"{how}: left beside the result: {left}")


def _grow_old(temporary: Path) -> None:
    """What is there was made an hour ago: young folders of other programs are not swept."""
    for path in [temporary, *temporary.rglob("*")]:
        os.utime(path, (time.time() - 3600,) * 2)


def _check_no_trace(trial: Trial, *commands: subprocess.Popen[bytes]) -> None:
    trial.require(not any(processes_left(command.pid) for command in commands), "a process lives on")
    trial.require(not trial.left(), f"left in the folder for temporary files: {trial.left()[:3]}")
