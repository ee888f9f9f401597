"""All attacks, how often each is tried, and what it needs."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec

from . import checkpoints, deaths, hosts, lines, shortage, walk
from .campaign import Attack
from .fuzz import fuzzed
from .trial import Trial


def _signals() -> str:
    return "" if hasattr(signal, "SIGSTOP") and hasattr(os, "killpg") else "needs POSIX signals"


def _inputs(maker: str, what: str, count: int, quick: int, trials: int = 4) -> Attack:
    """`count` inputs of a fuzzer in each of some trials, or `quick` in one."""

    def run(trial: Trial) -> None:
        fuzzed(trial, maker, quick if trial.quick else count)

    name = maker.split(":")[1]
    run.__name__ = f"read_{name}"
    return Attack(run, what, trials, 1, count, missing=lambda: _library(name))


def _library(name: str) -> str:
    package = {"tiff": "tifffile", "zarr": "zarr"}.get(name)
    return f"needs the package {package}" if package and find_spec(package) is None else ""


FILES = {  # format: what is damaged, how many in a trial
    "nrrd": ("NRRD", 5_000),
    "segmentation": (".seg.nrrd", 5_000),
    "metaimage": ("MetaImage", 5_000),
    "nifti": ("NIfTI", 5_000),
    "series": ("DICOM series", 300),
    "npy": (".npy", 5_000),
    "tiff": ("TIFF", 60),
    "zarr": ("OME-Zarr", 60),
    "compressed_series": ("DICOM series, compressed", 60),
    "dicom_segmentation": ("DICOM SEG", 600),
    "structures": ("DICOM RTSTRUCT", 600),
    "markups": ("hints files, and Markups that they name", 5_000),
}

ATTACKS: tuple[Attack, ...] = (
    Attack(deaths.stopped_for_long, f"a worker is stopped for {deaths.LONG_STOP_S:.0f} s while it trains", 4, 0, missing=_signals),
    Attack(deaths.killed, "a worker is killed in each phase, at a random moment", 100, len(deaths.PHASES), missing=_signals),
    Attack(deaths.stopped, "a worker is stopped and continued, while it trains and is corrected", 20, 1, missing=_signals),
    Attack(
        deaths.killed_at_every_call,
        "killed at the n-th fsync, rename, unlink of an update, a result, opening",
        len(deaths.SWEEPS),
        2,
        missing=_signals,
    ),
    Attack(deaths.killed_in_making_or_removing, "the same of making and removing a job", len(deaths.MAKERS), 3, missing=_signals),
    Attack(shortage.disk_refuses_every_call, "the n-th write, fsync, rename, unlink fails: no space", len(shortage.REFUSALS), 2, missing=_signals),
    Attack(shortage.full_disk, "a small disk is filled up by another program", 12, 1, missing=shortage.mounting),
    Attack(shortage.short_of_memory, "a worker may take no more memory, from a random moment on", 24, 1, missing=shortage.limits),
    Attack(hosts.reader_stops, "the host leaves stdout unread until it is full", 12, 1, missing=_signals),
    Attack(hosts.reader_closes, "the host closes stdout", 20, 1, missing=_signals),
    Attack(hosts.two_workers, "two workers open one job", 20, 1, missing=_signals),
    Attack(hosts.two_makers, "two processes make a job in one folder", 40, 3, missing=_signals),
    Attack(hosts.two_commands, "two `segment` with one `--job`", 12, 1, missing=_signals),
    Attack(hosts.command_ended, "`segment` is ended by SIGTERM, SIGHUP, SIGINT, SIGKILL at a random moment", 40, 4, missing=_signals),
    Attack(checkpoints.broken_checkpoint, "the checkpoint is damaged between two runs", 2, 1, missing=_signals),
    Attack(checkpoints.blocked_files, "a folder or a link in the place of a file", 1, 1, missing=_signals),
    Attack(walk.walk, "random commands against a model of the protocol", 24, 2, walk.STEPS, _signals),
    Attack(lines.odd_lines, "overlong, nested, foreign lines to a worker, idle and training", 4, 2, lines.ODD),
    Attack(lines.junk_lines, "damaged commands to a worker, in random pieces", 4, 1, lines.JUNK),
    _inputs("torture.inputs:lines", "lines of the protocol", 100_000, 5_000),
    _inputs("torture.inputs:settings", "settings", 20_000, 1_000),
    _inputs("torture.inputs:job_json", "job.json", 30_000, 1_000),
    _inputs("torture.inputs:updates", "what an `update` says", 20_000, 1_000),
    _inputs("torture.inputs:hints", "hints", 30_000, 1_000),
    _inputs("torture.inputs:arrays", "arrays of a job", 5_000, 1_000),
    _inputs("torture.inputs:models", "models", 1_500, 100),
    *(_inputs(f"torture.files:{name}", what, count, max(3, count // 50)) for name, (what, count) in FILES.items()),
)
