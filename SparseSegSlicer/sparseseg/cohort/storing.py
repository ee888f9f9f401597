"""The results of a cohort into an archive: each once, and what was not taken again with the next run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ..contract.errors import InputError, ServerError, SparseSegError
from ..stopping import Stop
from . import dicomweb
from .manifest import Manifest
from .web import Server

_MOST_FAILURES = 3  # in a row, after which the archive is left alone


def check(archive: str, form: str, insecure: bool) -> None:
    """Asked before long work. Raises InputError for what is no address of an archive, AccessError, and for results that are no DICOM files."""
    Server.at(archive, insecure)
    if form != "dcm":
        raise InputError("An archive takes DICOM files only.", "Give --format dcm, or leave --store out.")


def store_results(
    results: Path, manifest: Manifest, names: Collection[str], archive: str, insecure: bool, stop: Stop, say: Callable[[str], None]
) -> SparseSegError | None:
    """Those of these names whose file in the folder `results` the archive has not taken yet. The first failure, where there is one; after several in
    a row nothing more is tried."""
    waiting = [(name, output) for name, output in manifest.unstored(archive) if name in names]
    first: SparseSegError | None = None
    taken = in_a_row = 0
    for name, output in waiting:
        if stop.times or in_a_row == _MOST_FAILURES:
            break
        try:
            dicomweb.store(archive, results / output, insecure)
            manifest.stored(name, archive)
            taken, in_a_row = taken + 1, 0
        except (InputError, ServerError) as error:
            first, in_a_row = first or error, in_a_row + 1
            say(f"warning: {name} is not stored: {error}")
    if waiting:
        later = f"; run it again to send the other {len(waiting) - taken}" if taken < len(waiting) else ""
        say(f"{taken} results are in the archive{later}")
    return first
