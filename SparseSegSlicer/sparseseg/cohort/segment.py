"""`sparseseg cohort segment`: every volume of a list once, whatever dies. The driver hands volumes to those that segment, and keeps the manifest."""

from __future__ import annotations

import argparse
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import __version__
from ..console import Screen
from ..contract.errors import InputError, JobError, WorkerError
from ..contract.folders import writing
from ..contract.lock import HOST_LOCK, Lock
from ..stopping import Stop
from . import on_ray
from .actors import Actors, Answer, Setting, Task, count_of, spread
from .children import Children
from .manifest import DONE, FAILED, NAME, QUARANTINED, WAITING, Manifest, Row
from .page import write_pages
from .patient import Patient
from .patients import read_list
from .segmenting import sha256_of
from .storing import check as check_storing
from .storing import store_results

RESULTS, PICTURES = "segmentations", "pictures"
_LOOK_S, _TELL_S, _PAGE_S = 0.2, 10.0, 60.0
Say = Callable[[str], None]


def segment(options: argparse.Namespace) -> int:
    """The exit code: 0 all are done; 2 some cannot be used; 4 some died with all their tries; 2 or 4 as well where some were not stored; that of
    `stop` where the user asked for it."""
    stop: Stop = options.stop
    show = Screen()
    if options.store:
        check_storing(options.store, options.format, options.insecure)
    with stop.by_leaving():
        setting, names = _checked(options)
    with stop.at_once():
        patients = {patient.name: patient for patient in read_list(options.list, annotated=False)}
    folder = options.output.absolute()
    with _owned(folder), _opened(folder) as manifest:
        waiting = _begin(manifest, folder, patients, setting, options)
        driver = Driver(manifest, [_task(folder, patients[name], options.format) for name in waiting], setting.sha256, options.attempts)
        try:
            if waiting and not stop.times:
                driver.work(_actors(options, setting, len(waiting), show.stage), stop, _Telling(driver, folder, names, show.stage))
        finally:
            write_pages(folder, manifest, setting.sha256, names)
        unsent = store_results(folder / RESULTS, manifest, patients, options.store, options.insecure, stop, show.stage) if options.store else None
        counts = manifest.counts()
    show.stage(", ".join(f"{counts[state]} {state}" for state in (DONE, QUARANTINED, FAILED, WAITING) if counts.get(state)))
    show.wrote(folder / "index.html")
    if stop.times:
        return stop.exit_code
    if counts.get(FAILED):
        return WorkerError.exit_code
    return InputError.exit_code if counts.get(QUARANTINED) else unsent.exit_code if unsent else 0


def _checked(options: argparse.Namespace) -> tuple[Setting, dict[str, str]]:
    """The model can be used, before anybody is started with it; and what its segments are called, by ID. Raises ModelError."""
    from ..network import checkpoint

    classes = checkpoint.load(options.model).classes
    setting = Setting(str(options.model.absolute()), sha256_of(options.model), options.device, options.dicom, options.insecure)
    return setting, dict(zip(classes.ids, classes.names, strict=True))


def _actors(options: argparse.Namespace, setting: Setting, volumes: int, say: Say) -> Actors:
    """Raises PackageError, WorkerError."""
    with_ray = bool(options.ray) or not options.local
    if with_ray and not options.ray and not on_ray.is_installed():
        say("Ray is not installed: child processes of this computer segment (for clusters: pip install 'sparseseg[cohort]')")
        with_ray = False
    if with_ray:
        return on_ray.RayActors(setting, options.ray or "", min(options.actors, volumes), say)
    from ..network import device

    gpus = sum(name.startswith("cuda") for name in device.candidates()) if setting.device == "auto" else 0
    return Children(spread(setting, min(count_of(options.actors, gpus, device.usable_cores()), volumes), gpus))


# -- the folder ----------------------------------------------------------------------------------------------------------


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """The folder is this driver's until the end. Raises InputError where it is another's, OutputError where it cannot be made."""
    with writing(folder):
        if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or any((folder / name).exists() for name in (NAME, HOST_LOCK)))):
            raise InputError(f"{folder} is not empty and holds no manifest of a cohort.", "Choose an empty or a new folder.")
        for place in (folder, folder / RESULTS, folder / PICTURES):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = Lock(folder, HOST_LOCK)
    except JobError as error:
        who = error.sentence.partition("(")[2].partition(")")[0]
        raise InputError(f"Another run is at work in {folder}{f' ({who})' if who else ''}.", "Wait for it, or choose another folder.") from error
    try:
        _sweep(folder)
        yield
    finally:
        _sweep(folder)
        lock.release()


def _sweep(folder: Path) -> None:
    """What those left that were killed while they wrote: half files, whose names begin with a dot."""
    for place in (folder / RESULTS, folder / PICTURES):
        with suppress(OSError):
            for path in place.glob(".*"):
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _opened(folder: Path) -> Iterator[Manifest]:
    manifest = Manifest(folder)
    try:
        yield manifest
    finally:
        manifest.close()


def _task(folder: Path, patient: Patient, ending: str) -> Task:
    """With full paths: those that segment run elsewhere."""
    images = tuple(image if "://" in image else str(Path(image).absolute()) for image in patient.images)
    return Task(patient.name, images, str(folder / RESULTS / f"{patient.name}.{ending}"), str(folder / PICTURES / f"{patient.name}.svg"))


def _begin(manifest: Manifest, folder: Path, patients: dict[str, Patient], setting: Setting, options: argparse.Namespace) -> list[str]:
    """What is to be done, in the list's order: what is new, was left, died, or is not there whole any more. Raises InputError for results of another
    model that may not be replaced."""
    manifest.begin({name: patient.images for name, patient in patients.items()})
    rows = {row.name: row for row in manifest.rows() if row.name in patients}
    others = [row for row in rows.values() if row.state == DONE and row.model != setting.sha256]
    if others and not options.again:
        raise InputError(
            f"{len(others)} of the results in {folder} are of another model (SHA-256 {others[0].model[:12]}...).",
            "Give --again to make them anew, or choose another folder.",
        )
    anew = [row.name for row in rows.values() if _is_missing(row, folder, setting.sha256, options)]
    manifest.wait(anew)
    return [name for name, row in rows.items() if row.state == WAITING or name in set(anew)]


def _is_missing(row: Row, folder: Path, model: str, options: argparse.Namespace) -> bool:
    """Of a series that is not waiting, whether it should be done again."""
    if row.state != DONE:
        return row.state == FAILED or (row.state == QUARANTINED and options.again)
    output = folder / RESULTS / f"{row.name}.{options.format}"
    return row.model != model or row.output != output.name or not _is_whole(output, row)


def _is_whole(output: Path, row: Row) -> bool:
    try:
        return output.stat().st_size == row.bytes_written and sha256_of(output) == row.sha256
    except OSError:
        return False


# -- at work -------------------------------------------------------------------------------------------------------------


class Driver:
    """The only one that writes the manifest. As many volumes are handed out as there are actors that would begin; all others wait here."""

    def __init__(self, manifest: Manifest, tasks: Sequence[Task], model: str, attempts: int) -> None:
        """model: SHA-256 of its file; attempts: how often a volume is tried whose actor dies."""
        self.manifest, self.total = manifest, len(tasks)
        self.model, self._attempts = model, attempts
        self._waiting = deque(tasks)
        self._at_work: dict[str, Task] = {}

    @property
    def left(self) -> int:
        return len(self._waiting) + len(self._at_work)

    def work(self, actors: Actors, stop: Stop, tell: Callable[[], None]) -> None:
        """Until none is left, or the user asks to stop. The actors end with it. Raises SparseSegError where nothing can be done for any volume; what
        was at work waits then."""
        try:
            while self.left and not stop.times:
                self._hand_out(actors)
                for answer in actors.wait(_LOOK_S):
                    self._take(answer)
                tell()
        finally:
            actors.close()
            for name in self._at_work:
                self.manifest.stopped(name)

    def _hand_out(self, actors: Actors) -> None:
        for host, pid in actors.free():
            if self._waiting:
                task = self._waiting.popleft()
                self._at_work[task.name] = task
                self.manifest.started(task.name, host, pid)
                actors.submit(task)

    def _take(self, answer: Answer) -> None:
        if answer.kind == "stop":
            raise answer.error
        task = self._at_work.pop(answer.name)
        if answer.kind == "done":
            result = {**answer.result, "output": Path(answer.result["output"]).name}
            self.manifest.done(task.name, self.model, __version__, result)
        elif answer.kind == "refused":
            self.manifest.quarantined(task.name, answer.sentence)
        elif self.manifest.died(task.name, answer.sentence, self._attempts):
            self._waiting.append(task)


class _Telling:
    """How far it is, every few seconds; the pages, every minute."""

    def __init__(self, driver: Driver, folder: Path, names: dict[str, str], say: Say) -> None:
        self._driver, self._folder, self._names, self._say = driver, folder, names, say
        self._begun = self._told = self._written = time.monotonic()

    def __call__(self) -> None:
        now, driver = time.monotonic(), self._driver
        if now - self._told > _TELL_S:
            self._told = now
            over = driver.total - driver.left
            rate = 60 * over / (now - self._begun)
            ahead = f", {rate:.1f} a minute, about {driver.left / rate:.0f} minutes left" if over else ""
            self._say(f"{over} of {driver.total} volumes{ahead}")
        if now - self._written > _PAGE_S:
            write_pages(self._folder, driver.manifest, driver.model, self._names)
            self._written = time.monotonic()
