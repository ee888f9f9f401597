"""`sparseseg cohort ...`: what may be asked for, and who does it. What each loads, it loads when it is asked for."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .. import io
from ..contract.errors import InputError

_FORMATS = tuple(ending[1:] for ending in io.WRITE_SUFFIXES)


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `cohort` to the command line's commands."""
    cohort = commands.add_parser("cohort", help="learn from many sparsely annotated patients, segment many more (docs/cohorts.md)")
    parts = cohort.add_subparsers(required=True, metavar="WHAT")
    _add_train(parts)
    _add_export(parts)
    _add_segment(parts)
    _add_find(parts)
    _add_mercure(parts)


def run(options: argparse.Namespace) -> int:
    """The exit code. Raises SparseSegError."""
    return int(options.work(options))


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("list", type=Path, metavar="LIST", help="CSV or JSON lines (image, annotation), a folder of patients, BIDS, nnU-Net dataset")


def _add_annotation(parser: argparse.ArgumentParser) -> None:
    """What label maps of a list mean that does not say it itself."""
    parser.add_argument("--complete-slices", choices=("none", "auto"), default="none", help="auto: what is unpainted on filled slices is background")
    parser.add_argument("--background", metavar="NAME", help="the segment that means 'none of the others'; in label maps its value, or none")
    parser.add_argument("--unlabelled", type=int, default=0, metavar="VALUE", help="the value that means nothing in label maps (default 0)")


def _add_train(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = parts.add_parser("train", help="one network from many sparsely annotated patients")
    _add_list(train)
    train.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL", help="the model; MODEL.json beside it is the log")
    _add_annotation(train)
    train.add_argument("--held-out", type=float, default=0.2, metavar="SHARE", help="of the patients, to validate on, one at least (%(default)g)")
    train.add_argument("--minutes", type=float, default=60.0, metavar="M", help="for training, without preparing (default %(default)g)")
    train.add_argument("--steps", type=int, default=0, metavar="N", help="train exactly N steps instead")
    train.add_argument("--batch", type=int, default=0, metavar="N", help="slabs a step and process (default: what the device likes)")
    train.add_argument("--seed", type=int, default=0, metavar="N")
    train.add_argument("--start-from", type=Path, metavar="MODEL", help="begin with the weights of an earlier model")
    train.add_argument("--from-nothing", action="store_true", help="begin with random weights, not with those that come with the engine")
    train.add_argument("--resume", action="store_true", help="go on with MODEL, which a run that was ended has left")
    train.add_argument("--cache", type=Path, metavar="DIR", help="where prepared volumes lie meanwhile (default: the system's temporary files)")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    train.set_defaults(run=run, work=_train)


def _add_export(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = parts.add_parser("export", help="the annotated patients of a list as a data set of nnU-Net")
    _add_list(export)
    _add_annotation(export)
    export.add_argument("--nnunet", type=Path, required=True, metavar="FOLDER", help="a new folder, Dataset123_Name for nnU-Net's commands")
    export.set_defaults(run=run, work=_export)


def _add_segment(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    segment = parts.add_parser("segment", help="every volume of a list with one model, on this computer or a Ray cluster")
    segment.add_argument("model", type=Path, metavar="MODEL")
    segment.add_argument("list", type=Path, metavar="LIST", help="CSV or JSON lines (image), a folder of patients, BIDS, nnU-Net dataset")
    segment.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="a folder; run again with it to do what is missing")
    segment.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help="of the results; dcm: DICOM, for DICOM series (default %(default)s)")
    segment.add_argument("--dicom", choices=io.KINDS, default="seg", help="what a .dcm file becomes (default seg, binary)")
    segment.add_argument("--actors", type=int, default=0, metavar="N", help="how many segment at once (default: one a GPU, else one a core)")
    segment.add_argument("--attempts", type=int, default=3, metavar="N", help="of a volume during which actors die (default %(default)s)")
    segment.add_argument("--again", action="store_true", help="also what another model made, and what was quarantined")
    where = segment.add_mutually_exclusive_group()
    where.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster that runs, as HOST:6379 or auto (default: one of this computer)")
    where.add_argument("--local", action="store_true", help="child processes of this computer, without Ray")
    segment.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    segment.add_argument("--store", metavar="URL", help="send the results to this DICOMweb archive, too (with --format dcm)")
    _add_insecure(segment)
    segment.set_defaults(run=run, work=_segment)


def _add_insecure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--insecure", action="store_true", help="ask archives over http, where others can read along")


def _add_find(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    find = parts.add_parser("list", help="the series that a DICOMweb archive finds, as a list for `segment`")
    find.add_argument("--dicomweb", required=True, metavar="URL", help="of the archive, as https://archive.example.org/dicom-web")
    find.add_argument("--query", default="", metavar="TEXT", help='as "Modality=CT&StudyDescription=Head*" (default: every series)')
    find.add_argument("-o", "--output", type=Path, required=True, metavar="LIST.csv")
    _add_insecure(find)
    find.set_defaults(run=run, work=_find)


def _add_mercure(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    mercure = parts.add_parser("mercure", help="one task of the DICOM router mercure, as MERCURE_IN_DIR and MERCURE_OUT_DIR say")
    mercure.add_argument("--models", type=Path, default=Path("/models"), metavar="DIR", help="where the model of the task lies (default %(default)s)")
    mercure.set_defaults(run=run, work=_mercure)


def _segment(options: argparse.Namespace) -> int:
    if options.actors < 0 or options.attempts < 1:
        raise InputError("--actors is 0 or more, and --attempts 1 or more.", "Leave them out, or give such numbers.")
    with options.stop.by_leaving():
        from .segment import segment

    return segment(options)


def _train(options: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch loads, as for the worker
    with options.stop.by_leaving():
        from .train import train

    return train(options)


def _export(options: argparse.Namespace) -> int:
    with options.stop.by_leaving():
        from .nnunet import export

    export(options)
    return 0


def _find(options: argparse.Namespace) -> int:
    from ..console import Screen
    from .dicomweb import find, write_list

    io.check_output(options.output, (".csv",))
    with options.stop.at_once():
        found = find(options.dicomweb, options.query, options.insecure)
    write_list(options.output, found)
    show = Screen()
    show.stage(f"{len(found)} series")
    show.wrote(options.output)
    return 0


def _mercure(options: argparse.Namespace) -> int:
    with options.stop.by_leaving():
        from .router import answer

    return answer(options)
