"""The command line: segment, predict, export, import, cohort, worker, doctor. Exit codes: 0 done; 1 unexpected failure; 2 an input, option or output
that cannot be used (what was written before is said); 3 the device or PyTorch; 4 the engine process died; 130 interrupted (segment writes the best
so far); 128 + n ended by signal n (SIGTERM 143, SIGHUP 129); 141 done, but nobody read what belongs on stdout."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from . import __version__, io
from .annotation.slices import find_complete_slices
from .cohort import commands as cohort
from .console import Screen, consoles, occupy_closed, say_error
from .contract import disk, errors, memory
from .contract.channels import MOST_CHANNELS, stack
from .contract.child import worker_environment
from .contract.classes import ClassTable
from .contract.client import WorkerClient
from .contract.errors import DeviceError, InputError, OutputError, SparseSegError, StuckError
from .contract.folders import PrivateFolder, remove_abandoned
from .contract.geometry import Geometry
from .contract.hints import Hints, classes_of
from .contract.job import DENSE, MODEL, REPORT, UNCERTAINTY, VOICES, WEIGHTS, Job, JobRecord, check_place
from .contract.lock import Owner
from .contract.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Command,
    Error,
    Event,
    Finish,
    Open,
    Predict,
    Preview,
    ProtocolError,
    Result,
    Train,
    Warning,
)
from .contract.remote import RESULTS, RemoteClient
from .contract.server import Server
from .contract.settings import Settings
from .contract.store import OnDisk
from .contract.store import same as same_values
from .stopping import Stop, asked

_UNREAD = 141  # as of a program that a closed pipe ends
_RESTARTS = 2
_GRACE_S, _GRACE_FOR_ALL_S = 1.0, 5.0  # for a worker to end by itself: when it is not wanted any more, and when it is done
_INPUTS = ("image", "annotation", "hints", "model", "start_from", "segmentation", "uncertainty")
_MORE: dict[str, tuple[tuple[str, ...], ...]] = {  # what else is written, and the endings of its names; any where there are none
    "--weights": (io.VOLUME_SUFFIXES,),
    "--report": ((".html", ".htm"),),
    "--save-model": ((),),
}
_ERRORS = (*vars(errors).values(), ProtocolError)
_EXIT_BY_CODE = {cls.code: cls.exit_code for cls in _ERRORS if isinstance(cls, type) and issubclass(cls, SparseSegError)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    with consoles() as (out, _):
        options = _parser().parse_args(argv)
        code = 0 if options.run is _worker else _run(options)
    if options.run is _worker:
        _worker(options)  # which has its own use for the streams
    return _UNREAD if out.is_lost and not code else code


def _run(options: argparse.Namespace) -> int:
    as_json = getattr(options, "json", False)
    occupy_closed()
    with asked() as options.stop:
        try:
            remove_abandoned()
            return int(options.run(options))
        except SparseSegError as error:
            say_error(error, as_json)
            return error.exit_code
        except MemoryError:
            say_error(SparseSegError("There is not enough memory for this.", "Close other programs, or crop the volume."), as_json)
            return SparseSegError.exit_code
        except KeyboardInterrupt:
            return options.stop.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparseseg", description="Dense 3-D segmentation from sparse annotation.", epilog=__doc__.split("line: ", 1)[1].split(". ", 1)[1]
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    segment = commands.add_parser("segment", help="train on one annotated volume and segment it")
    segment.add_argument("image", type=Path, metavar="IMAGE", help="NRRD, NIfTI, MHA, or a folder with one DICOM series")
    segment.add_argument(
        "annotation",
        type=Path,
        nargs="?",
        metavar="ANNOTATION",
        help=".seg.nrrd, or a label map: 0 unlabelled, 1 background, 1 + c segment c; may be left out where --hints names the segments",
    )
    _add_channels(segment)
    _add_output(segment)
    segment.add_argument(
        "--complete-slices",
        default="none",
        metavar="WHICH",
        help="none, auto, or e.g. 'axial:12,40;coronal:33' (counted from 0): what is unpainted there is background",
    )
    segment.add_argument("--hints", type=Path, metavar="FILE.json", help="regions, points, pieces, holes, volumes of segments (docs/hints.md)")
    segment.add_argument("--background", metavar="ID-OR-NAME", help="the segment that means 'none of the others'; in a label map its value, or none")
    segment.add_argument("--unlabelled", type=int, default=0, metavar="VALUE", help="the value that means nothing in a label map (default 0)")
    _add_reading(segment)
    segment.add_argument(
        "--time-budget", type=float, default=Settings().time_budget_s, metavar="SECONDS", help="for training and prediction (default %(default)g)"
    )
    segment.add_argument("--steps", type=int, default=0, metavar="N", help="train exactly N steps instead, for a repeatable result")
    segment.add_argument("--seed", type=int, default=0, metavar="N")
    segment.add_argument("--smooth-contours", action="store_true", help="what was painted may change at the rims of strokes and contours")
    segment.add_argument("--start-from", type=Path, metavar="MODEL", help="begin with the weights of an earlier model")
    segment.add_argument("--save-model", type=Path, metavar="FILE", help="keep the trained model")
    segment.add_argument("--job", type=Path, metavar="DIR", help="keep the job folder; with the same inputs, go on from its last checkpoint")
    segment.add_argument("--weights", type=Path, metavar="FILE", help="write the voxel weight map as a volume")
    segment.add_argument("--report", type=Path, metavar="FILE", help="write report.html")
    segment.set_defaults(run=_segment)
    predict = commands.add_parser("predict", help="segment a volume with a model trained earlier")
    predict.add_argument("model", type=Path, metavar="MODEL")
    predict.add_argument("image", type=Path, metavar="IMAGE")
    _add_channels(predict)
    _add_output(predict)
    _add_reading(predict)
    predict.set_defaults(run=_predict)
    out = commands.add_parser("export", help="write a segmentation as DICOM SEG or RTSTRUCT of the series that it belongs to")
    out.add_argument("segmentation", type=Path, metavar="SEGMENTATION", help="a job folder, .seg.nrrd, DICOM SEG, or label map (0 background)")
    out.add_argument("image", type=Path, metavar="SERIES", help="the folder of the DICOM series, or a .txt file that lists its files")
    out.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.dcm")
    out.add_argument("--uncertainty", type=Path, metavar="FILE", help="for a fractional SEG: 0 sure .. 255 two segments alike")
    _add_dicom(out)
    _add_other_patient(out)
    out.set_defaults(run=_export)
    back = commands.add_parser("import", help="make a DICOM SEG or RTSTRUCT a .seg.nrrd on its image's grid, to go on with")
    back.add_argument("segmentation", type=Path, metavar="SEG.dcm")
    back.add_argument("image", type=Path, metavar="IMAGE", help="the series, or an image file, that the SEG was drawn on")
    back.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=".seg.nrrd, or a label map: 1 + c segment c")
    back.add_argument("--series", metavar="UID", help="which DICOM series of the folder")
    _add_reading(back)
    back.set_defaults(run=_import)
    cohort.add_parsers(commands)
    worker = commands.add_parser("worker", help="serve the protocol on stdin and stdout (docs/protocol.md)")
    worker.add_argument("--remote", action="store_true", help="the other end of --engine ssh://..., which starts it by itself")
    worker.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)  # what --remote starts
    worker.set_defaults(run=_worker)
    doctor = commands.add_parser("doctor", help="versions, devices, memory, a real convolution on each, and what would be chosen")
    doctor.add_argument("--json", action="store_true", help="as one JSON object")
    _add_engine(doctor)
    doctor.set_defaults(run=_doctor)
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help=".seg.nrrd, .dcm, or a label map: 0 background, c segment c")
    _add_dicom(parser)
    _add_engine(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    parser.add_argument("--json", action="store_true", help="print the protocol's events, one JSON object a line")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", default="", metavar="ssh://USER@HOST[:PORT]", help="another computer that does the work (README: Use a GPU on another computer)"
    )
    parser.add_argument(
        "--engine-python", metavar="PATH", help="the Python there that has the engine (default: sparseseg-engine/bin/python, else python3)"
    )


def _add_channels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--channel",
        type=Path,
        action="append",
        default=[],
        metavar="IMAGE",
        help=f"another volume of the same anatomy, seen together with IMAGE; up to {MOST_CHANNELS - 1} times",
    )


def _add_dicom(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--series", metavar="UID", help="which DICOM series of the folder")
    parser.add_argument("--dicom", choices=io.KINDS, default="seg", help="what a .dcm file becomes (default seg, binary)")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    _add_transform(parser)
    _add_other_patient(parser)


def _add_transform(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spacing", default="", metavar="X,Y,Z", help="size of a voxel in mm, or one number, where .npy or TIFF does not say it")
    parser.add_argument("--select", default="", metavar="WHICH", help="e.g. 'level=1,c=0,t=0': what of a TIFF or Zarr is meant, counted from 0")
    parser.add_argument("--nifti-transform", choices=io.TRANSFORMS, default="auto", help="which transform of a NIfTI image rules where two differ")


def _add_other_patient(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--other-patient", action="store_true", help="take DICOM though its patient or frame of reference differs")


def _worker(options: argparse.Namespace) -> NoReturn:
    """It knows Ctrl-C itself."""
    if options.remote or options.keep:
        from .keeper import bridge, keep

        bridge() if options.remote else keep()
    from .worker import main as serve

    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve()


# -- segment -----------------------------------------------------------------------------------------------------------


def _segment(options: argparse.Namespace) -> int:
    stop: Stop = options.stop
    with stop.at_once():
        _check_outputs(options)
    with _job_folder(options.job) as folder:  # before anything is read: nobody else works in it until the result is there
        return _segment_in(folder, options, stop)


def _segment_in(folder: Path, options: argparse.Namespace, stop: Stop) -> int:
    show = Screen(options.json)
    with stop.at_once():
        settings = Settings(time_budget_s=options.time_budget, steps=options.steps, seed=options.seed, smooth_contours=options.smooth_contours)
        store = _store(folder, options, show)
        volume = _read_image(options, show, store)
        image, names = _read_channels(options, volume, show, store)
        strokes, hints = _read_annotation(options, volume, store)
        _say_of_annotation(strokes, show)
        complete = parse_complete_slices(options.complete_slices, strokes.annotation, volume.geometry)
    source_uids = volume.series.instance_uids if volume.series else ()
    record = JobRecord(volume.geometry, strokes.classes, settings, complete_slices=complete, source_uids=source_uids, hints=hints, channels=names)
    _write_job(folder, image, strokes.annotation, record)
    train = Train("train", settings.to_json(), str(options.start_from.resolve()) if options.start_from else "")
    result = _drive_on(folder, options, train, show, stop)
    if result is None:
        return stop.exit_code
    _write_outputs(_results(options, folder, record, volume, strokes.header, show), stop)
    show.done(result, strokes.classes, options.output)
    return stop.exit_code if stop.times else 0


def _store(folder: Path, options: argparse.Namespace, show: Screen) -> OnDisk:
    """Volumes go straight from their files into the job's folder. Before the first one does, what all needs is said, and refused where it is not
    there."""

    def first(shape: Sequence[int], dtype: np.dtype) -> None:
        what = f"A volume of {' x '.join(map(str, shape))} voxels"
        space = disk.job_bytes(shape, dtype.itemsize, 1 + len(options.channel), folder)
        needs = f"{memory.amount(space)} of disk in {folder}{_free(disk.free_bytes(folder))}"
        disk.check(folder, space, what)
        if not options.engine:
            work = memory.engine_bytes(shape)
            memory.check(what, work, "be segmented")
            needs = f"{memory.amount(work)} of memory{_free(memory.free_bytes())} and {needs}"
        disk.check(options.output.parent, io.expected_bytes(options.output, shape), options.output.name)
        show.stage(f"needs about {needs}")

    return OnDisk(folder, first)


def _free(count: int | None) -> str:
    return "" if count is None else f" ({memory.amount(count)} free)"


def _read_image(options: argparse.Namespace, show: Screen, store: OnDisk) -> io.Image:
    show.stage(f"reading {options.image.name}")
    volume = io.read_volume(options.image, options.series, options.nifti_transform, store, io.Taking.parse(options.spacing, options.select))
    _say_remarks(volume.remarks, show)
    _check_apart(options, volume.series)
    if io.suffix(options.output) == ".dcm":
        io.check_possible(options.dicom, volume.series, options.image)
    return volume


def _read_channels(options: argparse.Namespace, volume: io.Image, show: Screen, store: OnDisk) -> tuple[np.ndarray, tuple[str, ...]]:
    """What a job takes as its image, and what its channels are called; no names where there is one."""
    if len(options.channel) >= MOST_CHANNELS:
        raise InputError(f"--channel was given {len(options.channel)} times.", f"An image has {MOST_CHANNELS} channels at most, with IMAGE.")
    arrays = [volume.array]
    for path in options.channel:
        show.stage(f"reading {path.name}")
        channel = io.read_channel(path, volume, options.nifti_transform, options.other_patient, store)
        _say_remarks(channel.remarks, show)
        _check_apart(options, channel.series)
        arrays.append(channel.array)
    return stack(arrays, store), tuple(path.name for path in (options.image, *options.channel)) if options.channel else ()


def _read_annotation(options: argparse.Namespace, volume: io.Image, store: OnDisk) -> tuple[io.SparseLabels, Hints | None]:
    """Strokes and hints; without a file of strokes nothing is painted, and the segments are those of the hints."""
    if options.annotation is None and options.hints is None:
        raise InputError("There is neither an annotation nor --hints.", "Give one of them, or both.")
    said = io.read_hints(options.hints) if options.hints else None
    geometry = volume.geometry
    if options.annotation is not None:
        strokes = io.read_annotation(
            options.annotation,
            geometry,
            options.background,
            unlabelled=options.unlabelled,
            series=volume.series,
            other_patient=options.other_patient,
            transform=options.nifti_transform if volume.nifti else "auto",
            store=store,
        )
    elif options.background or options.complete_slices not in ("none", "auto"):
        raise InputError("--background and --complete-slices are about an annotation, and there is none.", "Leave them out.")
    else:
        strokes = io.SparseLabels(np.zeros(geometry.shape_kji, np.uint8), classes_of(said), {}, {})
    return strokes, None if said is None else Hints.from_json(said, strokes.classes, geometry)


def parse_complete_slices(text: str, annotation: np.ndarray, geometry: Geometry) -> tuple[tuple[int, int], ...]:
    """'none', 'auto', or 'axial:12,40;coronal:33' -> (axis, index) pairs. Raises InputError."""
    if text == "none":
        return ()
    if text == "auto":
        return find_complete_slices(annotation)
    pairs = []
    for part in text.split(";"):
        plane, _, indices = part.partition(":")
        axis = geometry.plane_axis(plane.strip().lower())
        for index in indices.split(","):
            if not index.strip().isdigit():
                raise InputError(f"--complete-slices: {part.strip()!r} is not understood.", "Write for example 'axial:12,40;coronal:33'.")
            if int(index) >= geometry.shape_kji[axis]:
                raise InputError(
                    f"--complete-slices: {plane.strip()} slice {int(index)} lies outside of the volume (0 to {geometry.shape_kji[axis] - 1})."
                )
            pairs.append((axis, int(index)))
    return tuple(pairs)


def _write_job(folder: Path, image: np.ndarray, annotation: np.ndarray, record: JobRecord) -> None:
    """A new job; an existing one with the same inputs is kept, so that training goes on from its checkpoint."""
    if (folder / "job.json").exists():
        with Job.open(folder) as job:
            same = (
                job.record.geometry == record.geometry
                and job.record.classes == record.classes
                and job.record.complete_slices == record.complete_slices
                and job.record.hints == record.hints
                and job.record.channels == record.channels
            )
            if same and same_values(job.channels(), image if image.ndim == 4 else image[None]) and same_values(job.annotation(), annotation):  # type: ignore[arg-type]
                return
    Job.create(folder, image, annotation, record).close()


def _say_of_annotation(strokes: io.SparseLabels, show: Screen) -> None:
    if strokes.note:
        show.stage(strokes.note)
    _say_remarks(strokes.remarks, show)
    for (a, b), voxels in strokes.overlaps.items():
        sentence = f"{voxels} voxels are painted in both {a} and {b}; they count as unlabelled."
        show.event(Warning("", 0, "overlap", sentence, "Erase one of the two there."))


def _say_remarks(remarks: Sequence[str], show: Screen) -> None:
    """What was noticed about a file, in reading or in writing."""
    for remark in remarks:
        show.event(Warning("", 0, "file", remark, ""))


# -- outputs -----------------------------------------------------------------------------------------------------------


def _outputs(options: argparse.Namespace) -> dict[str, Path]:
    """Every file that the command writes, by its option."""
    named = {name: getattr(options, name.strip("-").replace("-", "_"), None) for name in ("--output", *_MORE)}
    return {name: path for name, path in named.items() if path is not None}


def _check_outputs(options: argparse.Namespace) -> None:
    """Before any work: could all of them be written, each to a place of its own? Raises InputError, OutputError."""
    _check_apart(options)
    for name, path in _outputs(options).items():
        io.check_output(path, *_MORE.get(name, ()))


def _check_apart(options: argparse.Namespace, series: io.Series | None = None) -> None:
    """Raises InputError where an output would replace an input, a file of the series among them, or another output, or lies in the job folder."""
    given = [getattr(options, name, None) for name in _INPUTS]
    inputs = [path for path in (*given, *getattr(options, "channel", [])) if path is not None]
    frames = [frame.file for frame in series.frames] if series is not None else []
    io.check_apart(_outputs(options), [*inputs, *frames], getattr(options, "job", None))


def _results(
    options: argparse.Namespace, folder: Path, record: JobRecord, volume: io.Image, header: dict[str, str] | None, show: Screen
) -> list[tuple[Path, Callable[[], None]]]:
    """What is asked for of a finished job, and how it is written; the result first."""
    named: list[tuple[Path | None, Callable[[], None]]] = [
        (options.output, lambda: _write_result(options, folder, volume, record.classes, show, header)),
        (options.weights, lambda: io.write_volume(options.weights, np.load(folder / WEIGHTS, mmap_mode="r"), record.geometry, like=volume)),
        (options.report, lambda: _write_report(options, folder)),
        (options.save_model, lambda: _write_model(options.save_model, folder)),
    ]
    return [(path, write) for path, write in named if path is not None]


def _write_outputs(outputs: Sequence[tuple[Path, Callable[[], None]]], stop: Stop) -> None:
    """All that can be written. What fails, for lack of space say, leaves the others whole; then it is said which these are.

    Raises OutputError of the first that failed, KeyboardInterrupt between two where the user asks to stop meanwhile.
    """
    asked_before = stop.times
    written: list[Path] = []
    failed: list[tuple[Path, Exception]] = []
    for path, write in outputs:
        if stop.times > asked_before:
            raise KeyboardInterrupt
        try:
            write()
            written.append(path)
        except (SparseSegError, OSError, MemoryError) as error:
            failed.append((path, error))
    if failed:
        raise _unwritten(*failed[0], written) from failed[0][1]


def _unwritten(path: Path, error: Exception, written: Sequence[Path]) -> SparseSegError:
    reason = error.sentence if isinstance(error, SparseSegError) else f"{path} could not be written ({getattr(error, 'strerror', None) or error})."
    rest = f"Whole and in place: {', '.join(map(str, written))}." if written else "Nothing was written."
    return OutputError(reason, f"{rest} {getattr(error, 'advice', '')}".strip())


def _write_result(
    options: argparse.Namespace, folder: Path, volume: io.Image, classes: ClassTable, show: Screen, header: dict[str, str] | None = None
) -> None:
    labels = np.load(folder / DENSE, mmap_mode="r")
    if io.suffix(options.output) != ".dcm":
        io.write_segmentation(options.output, labels, volume.geometry, classes, header, like=volume)
        return
    assert volume.series is not None  # checked before the work began
    dense = io.Dense(labels, classes, np.load(folder / UNCERTAINTY))
    _say_remarks(io.write_dicom(options.output, options.dicom, dense, volume.series), show)


def _write_report(options: argparse.Namespace, folder: Path) -> None:
    from . import report

    report.write_report(options.report, report_input(folder, options.image.name))


def _write_model(path: Path, folder: Path) -> None:
    from .network import checkpoint

    checkpoint.export(folder / MODEL, path)


def report_input(folder: Path, title: str, truth: np.ndarray | None = None) -> report.ReportInput:  # type: ignore[name-defined] # noqa: F821
    """What report.html shows of a finished job; truth (K, J, I) uint8, 0 background, c segment c, where it is known."""
    from . import report

    with Job.open(folder) as job:
        run = json.loads((folder / REPORT).read_text(encoding="ascii"))
        annotation = job.annotation()
        assert annotation is not None  # a job that was trained
        if job.record.complete_slices:
            filled = (_filled(plane, k, job.record.complete_slices) for k, plane in enumerate(annotation))
            annotation = OnDisk(folder).keep("The annotation", annotation.shape, np.uint8, filled)
        dense = np.load(folder / DENSE, mmap_mode="r")
        voices = {name: np.load(folder / file, mmap_mode="r") for name, file in VOICES.items() if (folder / file).exists()}
        unsure = job.result(UNCERTAINTY)
        return report.ReportInput(title, job.image(), annotation, dense, job.record.geometry, job.record.classes, run, voices, truth, unsure)


def _filled(plane: np.ndarray, k: int, complete: Sequence[tuple[int, int]]) -> np.ndarray:
    """A plane of the annotation, with background where complete slices are not painted."""
    filled = np.array(plane)
    for axis, index in complete:
        view = (filled if index == k else filled[:0]) if axis == 0 else filled[index] if axis == 1 else filled[:, index]
        view[view == 0] = 1
    return filled


# -- DICOM -------------------------------------------------------------------------------------------------------------


def _export(options: argparse.Namespace) -> int:
    if io.suffix(options.output) != ".dcm":
        raise InputError(f"{options.output.name} is no name of a DICOM file.", "Give it the ending .dcm.")
    show = Screen()
    with options.stop.at_once():
        _check_outputs(options)
        series = io.find_series(options.image, options.series)
        _check_apart(options, series)
        io.check_possible(options.dicom, series, options.image)
        _say_remarks(series.remarks, show)
        dense = io.read_dense(options.segmentation, series.geometry, series, options.other_patient)
        _say_remarks(dense.remarks, show)
        if options.uncertainty:
            dense = replace(dense, uncertainty=io.read_labels(options.uncertainty, series.geometry))
    _say_remarks(io.write_dicom(options.output, options.dicom, dense, series), show)
    show.wrote(options.output)
    return options.stop.exit_code if options.stop.times else 0


def _import(options: argparse.Namespace) -> int:
    show = Screen()
    with options.stop.at_once():
        _check_apart(options)
        io.check_output(options.output, io.PLAIN_SUFFIXES)
        taking = io.Taking.parse(options.spacing, options.select)
        volume = io.read_volume(options.image, options.series, options.nifti_transform, taking=taking)
        _say_remarks(volume.remarks, show)
        _check_apart(options, volume.series)
        strokes = io.read_annotation(options.segmentation, volume.geometry, series=volume.series, other_patient=options.other_patient)
        _say_of_annotation(strokes, show)
    io.write_annotation(options.output, strokes.annotation, volume.geometry, strokes.classes, like=volume)
    show.wrote(options.output)
    return options.stop.exit_code if options.stop.times else 0


# -- predict and doctor ------------------------------------------------------------------------------------------------


def _predict(options: argparse.Namespace) -> int:
    stop: Stop = options.stop
    show = Screen(options.json)
    with stop.at_once():
        _check_outputs(options)
    with _job_folder(None) as folder:
        with stop.at_once():
            store = _store(folder, options, show)
            volume = _read_image(options, show, store)
            with stop.by_leaving():
                from .network import checkpoint
            model = checkpoint.load(options.model)
            classes = model.classes
            model.check_channels(1 + len(options.channel))
            image, names = _read_channels(options, volume, show, store)
        Job.create(folder, image, None, JobRecord(volume.geometry, classes, Settings(), channels=names)).close()
        result = _drive(folder, options, Predict("predict", str(options.model.resolve())), show, stop)
        if result is None or stop.times:
            return stop.exit_code
        _write_result(options, folder, volume, classes, show)
        show.done(result, classes, options.output)
    return stop.exit_code if stop.times else 0


def _doctor(options: argparse.Namespace) -> int:
    if (server := _engine(options)) is not None:
        return _doctor_there(server, options)
    os.environ.update(worker_environment())  # before torch loads, so that it measures what the worker will get
    with options.stop.by_leaving():
        from .doctor import examine, text

        found = examine()
    sys.stdout.write(json.dumps(found) + "\n" if options.json else text(found) + "\n")
    return 0 if found["works"] else DeviceError.exit_code


def _doctor_there(server: Server, options: argparse.Namespace) -> int:
    from .doctor import text

    with options.stop.by_leaving():
        found = server.examine()
    said = f"{server.title}: an engine of this version ({__version__}, protocol {PROTOCOL_VERSION}).\n{text(found)}\n"
    if not found.get("works"):
        said += f"To install what it lacks: {server.install}.\n"
    sys.stdout.write(json.dumps(found) + "\n" if options.json else said)
    return 0 if found.get("works") else DeviceError.exit_code


# -- driving the worker ------------------------------------------------------------------------------------------------


def _engine(options: argparse.Namespace) -> Server | None:
    """Where the work is done; None: here. Raises ServerError."""
    if not options.engine:
        if options.engine_python:
            raise InputError("--engine-python is about an engine on another computer.", "Name that with --engine, or leave it out.")
        return None
    server = Server.parse(options.engine)
    return server.with_python(options.engine_python) if options.engine_python else server


def _start_engine(options: argparse.Namespace) -> WorkerClient | RemoteClient:
    server = _engine(options)
    if server is None:
        return WorkerClient()
    given = vars(options)
    wanted = [UNCERTAINTY]
    wanted += [MODEL] if given.get("save_model") else []
    wanted += [WEIGHTS] if given.get("weights") else []
    wanted += [REPORT, *VOICES.values()] if given.get("report") else []
    return RemoteClient(server, results=RESULTS if given.get("job") else wanted)


def _drive_on(folder: Path, options: argparse.Namespace, train: Train, show: Screen, stop: Stop) -> Result | None:
    """As _drive; a worker that got stuck is started again, and goes on from its checkpoint."""
    for _ in range(_RESTARTS):
        try:
            return _drive(folder, options, train, show, stop)
        except SparseSegError as error:
            if error.code != StuckError.code:
                raise
            show.event(Warning(train.id, 0, "restarted", error.sentence, "It was started again."))
    return _drive(folder, options, train, show, stop)


def _drive(folder: Path, options: argparse.Namespace, command: Command, show: Screen, stop: Stop) -> Result | None:
    """Run one command in a worker to its end: the result, also that which `stop` asks for. None: stopped with nothing to keep.

    Raises SparseSegError with the worker's own sentence where the command failed.
    """
    if stop.times:
        return None
    client = _start_engine(options)
    run = _Run(client, command, show)
    try:
        client.send(Open("open", str(folder.absolute()), options.device, owner=os.getpid()))
        client.send(command)
        while run.result is None and not run.abandoned:
            if (event := client.wait(0.2)) is not None:
                run.take(event)
            if stop.times:
                run.interrupt(stop.is_final)
        return run.result
    finally:
        client.close(_GRACE_S if run.abandoned else _GRACE_FOR_ALL_S).join(10)
        client.kill()


@dataclass
class _Run:
    """Follows one command's events."""

    client: WorkerClient | RemoteClient
    command: Command
    show: Screen
    result: Result | None = None
    finishing: bool = False
    abandoned: bool = False
    has_preview: bool = False

    def take(self, event: Event) -> None:
        self.show.event(event)
        if isinstance(event, Result):
            self.result = event
        elif isinstance(event, Preview):
            self.has_preview = True
        elif isinstance(event, Error) and (event.fatal or event.id in ("open", self.command.id)):
            if event.code == "cancelled":
                self.abandoned = True
                return
            raise _as_exception(event)

    def interrupt(self, is_final: bool) -> None:
        """First Ctrl-C: the best result so far. Second, or where there is none yet: stop."""
        if self.result is not None:
            return
        if is_final or not self.has_preview:
            self.abandoned = True
            self.client.send(Cancel("cancel"))
        elif not self.finishing:
            self.finishing = True
            self.show.stage("stopping: the best result so far is being written (Ctrl-C again: stop without it)")
            self.client.send(Finish("finish"))


def _as_exception(event: Error) -> SparseSegError:
    error = SparseSegError(event.sentence, event.advice)
    error.code = event.code
    error.exit_code = _EXIT_BY_CODE.get(event.code, 1)
    return error


@contextmanager
def _job_folder(kept: Path | None) -> Iterator[Path]:
    """The user's folder, or one in a private folder that is removed at the end; this process is its owner."""
    if kept is not None:
        check_place(kept)
        with Owner(kept):
            yield kept
        return
    with PrivateFolder() as folder, Owner(folder / "job"):
        yield folder / "job"
