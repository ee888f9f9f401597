"""One task of the DICOM router mercure, in a container that it starts: series in, their segmentations out
(https://mercure-imaging.org/docs/modules.html).

MERCURE_IN_DIR holds the files of a series or study, called SERIES#OBJECT.dcm, and task.json with the settings; results go to MERCURE_OUT_DIR, called
likewise, and result.json says what became of every series. Where this ends with another code than 0, the router sends nothing on: so it is 0 as
soon as one series was segmented, and what could not be is named in result.json, in the log, and in the router's notification.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import __version__, io
from ..console import Screen
from ..contract.errors import InputError, OutputError, SparseSegError
from ..contract.folders import PrivateFolder, write_whole, writing
from ..contract.opening import read_text
from ..stopping import Stop
from .patient import Patient
from .segmenting import Segmented, Segmenter

IN, OUT = "MERCURE_IN_DIR", "MERCURE_OUT_DIR"
TASK, RESULT = "task.json", "result.json"
SEGMENTED, LEFT_OUT, REFUSED = "segmented", "left out", "refused"
_MOST_BYTES = 64_000_000  # of task.json, which names every object of a study


@dataclass(frozen=True)
class TaskSettings:
    """What the module's settings in the router may say. model: a file's name in the folder of models, where there are several; output: of io.KINDS;
    segments: names of those that are written (none: all); modalities: of the series that are segmented (none: all); least_estimate: results whose
    worst segment is expected below this Dice are not sent on; device."""

    model: str = ""
    output: str = "seg"
    segments: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    least_estimate: float = 0.0
    device: str = "auto"

    @classmethod
    def from_task(cls, task: Any) -> TaskSettings:
        """Raises InputError for a setting that is not known, or of another type."""
        process = task.get("process") if isinstance(task, dict) else None
        given = process.get("settings") if isinstance(process, dict) else None
        given = {} if given is None else given
        if not isinstance(given, dict):
            raise InputError("The settings of the task are no table.", "Write them in the router as a JSON object.")
        known = {each.name: each.default for each in fields(cls)}
        if unknown := sorted(given.keys() - known.keys()):
            raise InputError(f"There is no setting {unknown[0]!r:.80}.", f"The settings are {', '.join(known)}.")
        settings = cls(**{name: _converted(name, value, known[name]) for name, value in given.items()})
        if settings.output not in io.KINDS:
            raise InputError(f"The setting output is {settings.output!r:.80}.", f"It is one of {', '.join(io.KINDS)}.")
        if not 0 <= settings.least_estimate <= 1:
            raise InputError(f"The setting least_estimate is {settings.least_estimate}.", "It is a Dice, from 0 to 1.")
        return settings


def _converted(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(default, str) and isinstance(value, str):
        return value
    if isinstance(default, float) and type(value) in (int, float):
        return float(value)
    wanted = "a list of texts" if isinstance(default, tuple) else "a number" if isinstance(default, float) else "a text"
    raise InputError(f"The setting {name} is {value!r:.80}.", f"Write {wanted}.")


@dataclass
class Outcome:
    """What became of one series, as result.json has it."""

    series: str
    state: str
    reason: str = ""
    file: str = ""
    estimate: dict[str, float] = field(default_factory=dict)
    voxels: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Without what says nothing."""
        return {name: value for name, value in asdict(self).items() if value}


def answer(options: argparse.Namespace) -> int:
    """Do the task that the environment names; the exit code: 0 where at least one series was segmented. Raises SparseSegError where none was, after
    result.json says so too."""
    source, target = _folder(IN), _folder(OUT)
    stop: Stop = options.stop
    show = Screen()
    about: dict[str, Any] = {"program": f"SparseSegSlicer {__version__}"}
    outcomes: list[Outcome] = []
    try:
        with stop.at_once():
            settings = TaskSettings.from_task(_task(source))
            model = _model(options.models, settings.model)
            found = series_in(source)
        with stop.by_leaving():
            segmenter = Segmenter(model, settings.device, settings.output, only=settings.segments)
        about["model"] = {"file": model.name, "sha256": segmenter.sha256}
        for number, (series, files) in enumerate(found.items(), 1):
            stop.check()
            outcomes.append(_segmented(series, files, target, segmenter, settings, stop))
            show.stage(f"series {number} of {len(found)}: {outcomes[-1].state}. {outcomes[-1].reason}".rstrip())
        return _verdict(outcomes)
    except SparseSegError as error:
        about["error"] = str(error)
        raise
    finally:
        _write_result(target, about, outcomes)


def _folder(name: str) -> Path:
    given = os.environ.get(name, "")
    if not given or not Path(given).is_dir():
        raise InputError(f"{name} names no folder.", "This command is for containers that the router mercure starts; see docs/cohorts.md.")
    return Path(given)


def _task(source: Path) -> Any:
    try:
        return json.loads(read_text(source / TASK, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{TASK} cannot be read.", "Check the router's log.") from error


def _model(folder: Path, name: str) -> Path:
    """Raises InputError where there is no such model, or the folder holds several and none is named."""
    try:
        there = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix == ".pt")
    except OSError as error:
        raise InputError(f"There is no folder of models {folder}.", "Mount one at that place, or copy it into the image.") from error
    chosen = [path for path in there if path.name == name or not name]
    if len(chosen) == 1:
        return chosen[0]
    what = f"no model {name!r:.80}" if name else "no model (.pt)" if not there else f"{len(there)} models"
    listed = f"Set `model` to one of {', '.join(path.name for path in there)}." if there else "Mount a folder that holds one."
    raise InputError(f"{folder} holds {what}.", listed)


# ---------------------------------------------------------------- series


def series_in(source: Path) -> dict[str, list[tuple[Path, io.Instance | None]]]:
    """The router's files by series; None for one that cannot be read, which counts to the series that its name has. Raises InputError without any."""
    found: dict[str, list[tuple[Path, io.Instance | None]]] = {}
    for path in sorted(source.iterdir()):
        if path.suffix.lower() != ".dcm":
            continue
        try:
            instance = io.read_instance(path)
            series = instance.series
        except InputError:
            instance, series = None, ""
        found.setdefault(series or path.name.partition("#")[0], []).append((path, instance))
    if not found:
        raise InputError("The task has no DICOM file.", "Check the router's rule.")
    return found


def _segmented(
    series: str, files: list[tuple[Path, io.Instance | None]], target: Path, segmenter: Segmenter, settings: TaskSettings, stop: Stop
) -> Outcome:
    read = [instance for _, instance in files if instance is not None]
    if read and not any(instance.is_image for instance in read):
        return Outcome(series, LEFT_OUT, "It holds no images.")
    modality = next((instance.modality for instance in read), "")
    if read and settings.modalities and modality not in settings.modalities:
        return Outcome(series, LEFT_OUT, f"Its modality is {modality:.16}, and {', '.join(settings.modalities)} is asked for.")
    try:
        with PrivateFolder() as folder:
            listed = folder / f"{series[:64] or 'series'}.txt"
            listed.write_text("".join(f"{path}\n" for path, _ in files), encoding="utf-8")
            output = target / f"{os.getpid()}.part.dcm"
            result = segmenter.segment(Patient(series, (str(listed),)), output, stop.check)
        return _kept(series, result, output, segmenter, settings)
    except OutputError:
        raise
    except SparseSegError as error:
        return Outcome(series, REFUSED, str(error))


def _kept(series: str, result: Segmented, output: Path, segmenter: Segmenter, settings: TaskSettings) -> Outcome:
    """The result under a name of the router's kind; none where it is expected to be too bad."""
    names = {segment.id: segment.name for segment in segmenter.written.segments}
    estimate = {names[key]: round(dice, 4) for key, dice in result.estimate.items() if key in names}
    voxels = {names[key]: count for key, count in result.voxels.items() if key in names}
    seconds = round(sum(result.seconds.values()), 1)
    worst = min(estimate, key=estimate.__getitem__, default="")
    if worst and estimate[worst] < settings.least_estimate:
        output.unlink()
        reason = f"The estimated Dice of {worst} is {estimate[worst]:.2f}, below the {settings.least_estimate:.2f} that are asked for."
        return Outcome(series, REFUSED, reason, "", estimate, voxels, seconds, result.remarks)
    made = io.read_instance(output)
    place = output.with_name(f"{made.series}#{made.uid}.dcm")
    with writing(output.parent):
        os.replace(output, place)
    return Outcome(series, SEGMENTED, "", place.name, estimate, voxels, seconds, result.remarks)


# ---------------------------------------------------------------- the end


def _verdict(outcomes: list[Outcome]) -> int:
    """0; raises InputError where no series was segmented."""
    if any(outcome.state == SEGMENTED for outcome in outcomes):
        return 0
    reasons = "; ".join(f"{outcome.series}: {outcome.reason}" for outcome in outcomes)
    raise InputError("No series of the task could be segmented.", reasons)


def _write_result(target: Path, about: Mapping[str, Any], outcomes: list[Outcome]) -> None:
    """Raises OutputError."""
    result = {**about, "series": [outcome.to_json() for outcome in outcomes]}
    refused = [outcome for outcome in outcomes if outcome.state == REFUSED]
    if refused:
        text = "; ".join(f"series {outcome.series}: {outcome.reason}" for outcome in refused)
        result["__mercure_notification"] = {"text": f"{len(refused)} of {len(outcomes)} series were not segmented: {text}"}
    with writing(target):
        write_whole(target / RESULT, lambda file: file.write(json.dumps(result, indent=2).encode("utf-8")))
