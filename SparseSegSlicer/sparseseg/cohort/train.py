"""`sparseseg cohort train`: a list in, a model and its log out."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import io
from ..console import Screen
from ..contract.errors import InputError, ModelError
from ..contract.folders import PrivateFolder, writing
from ..contract.settings import Settings
from ..network import checkpoint, device
from ..network.checkpoint import Checkpoint
from ..network.device import Compute
from ..stopping import Stop
from .lessons import CohortLearner, Volumes
from .patient import Meaning, Patient
from .patients import read_list
from .preparing import Cohort, join, look, prepare
from .processes import Processes, joined
from .training import CohortRun, log_of

_SPLITS = 200  # tried, so that every segment is learned from
_AVERAGED = 0.995  # ema_decay: about the last 200 steps, as patients differ


def train(options: argparse.Namespace) -> int:
    """The exit code. Raises SparseSegError."""
    stop: Stop = options.stop
    with joined(options.device) as (processes, name):
        with stop.at_once():
            patients = read_list(options.list, annotated=True)
            _check(options, patients)
            if processes.is_first:
                _check_outputs(options.output, options.list, patients)
        show = Screen() if processes.is_first else None
        compute = device.choose(name)
        compute = replace(compute, dtype=processes.same(compute.dtype))  # which depends on what else the computer does
        with _folder(options.cache, processes) as folder, _run(options, patients, folder, processes, compute, show) as run:
            run.train(stop)
        if show is not None:
            for line in run.result():
                show.stage(line)
            show.wrote(options.output)
    return stop.exit_code if stop.times else 0


def _check(options: argparse.Namespace, patients: Sequence[Patient]) -> None:
    """Raises InputError."""
    if not 0 < options.held_out < 1:
        raise InputError(f"--held-out is a share between 0 and 1, got {options.held_out:g}.", "Give for example 0.2.")
    if not 0.01 <= options.minutes <= 1440:
        raise InputError(f"--minutes must lie between 0.01 and 1440, got {options.minutes:g}.", "Give --steps for longer runs.")
    if len(patients) < 2:
        raise InputError("There is one annotated patient, and one is held out to validate on.", "Annotate another, or use `sparseseg segment`.")


def _check_outputs(model: Path, source: Path, patients: Sequence[Patient]) -> None:
    """Before any work. Raises InputError, OutputError."""
    outputs = {"--output": model, "the log": log_of(model)}
    io.check_apart(outputs, [source, *(Path(path) for p in patients for path in (*p.images, p.annotation) if path is not None)])
    for path in outputs.values():
        io.check_output(path, ())


@contextmanager
def _folder(parent: Path | None, processes: Processes) -> Iterator[Path]:
    """One for the processes of a computer, removed at the end."""
    if not processes.leads:
        yield Path(processes.leaders(""))
        return
    with writing(parent or Path(tempfile.gettempdir())), PrivateFolder(parent) as own:
        yield Path(processes.leaders(str(own)))


@contextmanager
def _run(
    options: argparse.Namespace, patients: Sequence[Patient], folder: Path, processes: Processes, compute: Compute, show: Screen | None
) -> Iterator[CohortRun]:
    """All prepared, ready to train. Raises SparseSegError."""
    stop: Stop = options.stop
    settings = Settings(
        time_budget_s=max(1.0, 60 * options.minutes), steps=options.steps, seed=options.seed, batch=options.batch, ema_decay=_AVERAGED
    )
    tell = show.stage if show is not None else lambda _: None
    with stop.at_once():
        start, saved = (processes.same(model) for model in (_start(options) if processes.is_first else (None, None)))
        if processes.leads:
            members, segments = look(patients, folder, options.complete_slices, Meaning(options.background, options.unlabelled), tell)
        cohort = processes.same(join(members, segments, compute, settings, saved or start) if processes.is_first else None)
        if processes.leads:
            prepare(patients, cohort, folder, tell)
        processes.same(None)  # all wait until all is prepared
        learned, held = split(cohort, options.held_out, options.seed)
        weights = cohort.weights([cohort.members[n] for n in learned], settings)
    volumes = Volumes(folder, cohort, weights, compute)
    try:
        learner = CohortLearner(compute, cohort, volumes, learned, settings, processes)
        run = CohortRun(options.output, learner, held, processes, show)
        run.describe(tell)
        if saved is not None:
            run.go_on(saved)
        else:
            run.begin(start, options.from_nothing)
        yield run
    finally:
        volumes.close()


def _start(options: argparse.Namespace) -> tuple[Checkpoint | None, Checkpoint | None]:
    """A model to begin with, and one to go on with. Raises ModelError."""
    start = checkpoint.load(options.start_from) if options.start_from else None
    if not options.resume or not options.output.exists():
        return start, None
    saved = checkpoint.load(options.output)
    if "run" not in saved.training:
        raise ModelError(f"{options.output.name} has no state to go on from: its training has ended.", "Give it as --start-from, with a new -o.")
    return start, saved


def split(cohort: Cohort, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Members to learn from and to validate on, one at least each, so that every segment is learned from if that can be."""
    count, rng = len(cohort.members), np.random.default_rng(seed)
    held = min(max(1, round(share * count)), count - 1)
    orders = [rng.permutation(count).tolist() for _ in range(_SPLITS)]
    voxels = np.array([member.voxels for member in cohort.members])
    chosen = next((order for order in orders if voxels[order[held:]].any(0).all()), orders[0])
    return sorted(chosen[held:]), sorted(chosen[:held])
