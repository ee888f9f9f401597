"""Fuzzers of what hosts and disks give the engine: lines of the protocol, job.json, settings, updates, hints, arrays, models.

Each takes an empty folder and gives an attempt (fuzz.py). What is read must hold: it can be written and read again, its numbers are finite.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from phantoms import make_job, two_organs
from sparseseg import io
from sparseseg.contract.hints import Hints
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.protocol import COMMANDS, EVENTS, Command, decode_command, decode_event, encode
from sparseseg.contract.settings import Settings

from .mutate import altered, damaged, nonsense

Attempt = Callable[[random.Random], None]
SHAPE_KJI = (6, 10, 8)
_COMMANDS = (
    '{"command":"open","id":"1","job":"/jobs/liver","device":"auto","protocol":4}',
    '{"command":"train","id":"2","settings":{"time_budget_s":60,"steps":3},"start_from":"","resume":true}',
    '{"command":"update","id":"3","annotation":"annotation-0002.npy","revision":2,"complete_slices":[[0,4],[2,1]],"box":[[1,2],[3,9],[2,4]]}',
    '{"command":"finish","id":"4"}',
    '{"command":"cancel","id":"5"}',
    '{"command":"predict","id":"6","model":""}',
    '{"command":"close","id":"7"}',
)
_EVENTS = (
    '{"event":"ready","id":"","revision":0,"protocol":4,"pid":4711,"versions":{"torch":"2.6.0"},"device":"","why":"","job":"","summary":""}',
    '{"event":"progress","id":"2","revision":1,"stage":"training","step":120,"seconds":24.5,"eta_seconds":null,"fraction":0.4,"loss":{"dice":0.3},"estimate":{}}',
    '{"event":"preview","id":"3","revision":2,"file":"/p.npy","source":"growing","step":1,"seconds":0.1,"box":[[36,47],[96,170],[80,131]]}',
    '{"event":"error","id":"3","revision":1,"code":"annotation","sentence":"No.","advice":"Do.","fatal":false}',
)
_HINTS = json.dumps(
    {
        "hints_version": 1,
        "coordinates": "LPS",
        "segments": {
            "bright": {
                "roi": {"center": [-16, 14, 9], "size": [8, 10, 9], "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
                "points": [[-16, 14, 8], {"at": [-14, 12, 8], "radius_mm": 0}, {"at": [-19, 11, 6], "inside": False, "radius_mm": 0}],
                "one_piece": True,
                "volume_ml": [0.001, 9],
                "apart_from": ["dark"],
            },
            "dark": {"no_holes": True, "volume_ml": [None, 5]},
        },
        "outside": [{"at": [-13, 18, 12], "radius_mm": 0}],
    }
)


def lines(folder: Path) -> Attempt:
    """Lines as a host and a worker would read them: a message that can be written again, or a ProtocolError."""

    def attempt(rng: random.Random) -> None:
        line, decode, back = _line(rng)
        message = decode(line)
        assert decode(encode(message)) == message
        back(message)

    return attempt


def _line(rng: random.Random) -> tuple[str, Callable[[str], Any], Callable[[Any], None]]:
    if rng.random() < 0.7:
        text, decode, known = rng.choice(_COMMANDS), decode_command, COMMANDS
    else:
        text, decode, known = rng.choice(_EVENTS), decode_event, EVENTS
    kind = rng.randrange(3)
    if kind == 0:
        text = damaged(text.encode(), rng).decode("utf-8", errors="replace")
    elif kind == 1:
        text = json.dumps(altered(text, rng))
    elif rng.random() < 0.05:
        text = json.dumps(nonsense(rng))

    def check(message: Any) -> None:
        assert type(message) is known[message.kind] and isinstance(message.id, str)
        assert isinstance(message, Command) or isinstance(message.revision, int)

    return text, decode, check


def settings(folder: Path) -> Attempt:
    """The settings of a `train` or of a job."""
    text = json.dumps(Settings().to_json())

    def attempt(rng: random.Random) -> None:
        data = altered(text, rng) if rng.random() < 0.7 else {rng.choice(list(json.loads(text))): nonsense(rng)}
        if not isinstance(data, dict):
            return  # the protocol lets nothing else through
        read = Settings.from_json(data)
        _check_numbers(read.to_json())
        assert Settings.from_json(read.to_json()) == read

    return attempt


def job_json(folder: Path) -> Attempt:
    """job.json as it lies in a folder, or what it says."""
    phantom = two_organs(SHAPE_KJI)
    hints = Hints.from_json(json.loads(_HINTS), phantom.classes, phantom.geometry)
    job = make_job(folder / "job", phantom, hints=hints)
    np.save(job / "annotation-0002.npy", phantom.annotation[1:2, 3:9, 2:4])
    record = json.loads((job / "job.json").read_text())
    record["changes"] = [{"file": "annotation-0002.npy", "box": [[1, 2], [3, 9], [2, 4]]}]
    record["source_uids"] = ["1.2.3"]
    record["complete_slices"] = [[0, 1], [2, 3]]
    text = json.dumps(record)

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.8:
            _check_record(JobRecord.from_json(altered(text, rng)))
            return
        (job / "job.json").write_bytes(damaged(text.encode(), rng) if rng.random() < 0.7 else json.dumps(altered(text, rng)).encode())
        with Job.open(job) as opened:
            _check_record(opened.record)
            annotation = opened.annotation()
            assert annotation is None or annotation.shape == opened.record.geometry.shape_kji
            opened.channels()

    return attempt


def _check_record(record: JobRecord) -> None:
    data = record.to_json()
    _check_numbers(data)
    json.dumps(data, allow_nan=False).encode("ascii")
    assert JobRecord.from_json(json.loads(json.dumps(data))).to_json() == data
    assert 0 <= record.revision < 2**53, f"the revision {record.revision} was read"
    assert math.prod(record.geometry.shape_kji) < 2**53, f"the shape {record.geometry.shape_kji} was read"


def updates(folder: Path) -> Attempt:
    """What an `update` may say to a job."""
    phantom = two_organs(SHAPE_KJI)
    job = Job.open(make_job(folder / "job", phantom))
    np.save(job.path("annotation-0002.npy"), phantom.annotation)
    np.save(job.path("annotation-0003.npy"), phantom.annotation[1:2, 3:9, 2:4])
    own = {path.name for path in job.folder.iterdir() if not path.name.startswith("annotation-")}
    texts = (
        '{"name":"annotation-0002.npy","revision":2,"slices":[[0,4],[2,1]],"box":[]}',
        '{"name":"annotation-0003.npy","revision":3,"slices":[],"box":[[1,2],[3,9],[2,4]]}',
    )

    def attempt(rng: random.Random) -> None:
        data = altered(rng.choice(texts), rng)
        if not isinstance(data, dict) or not isinstance(data.get("name"), str) or type(data.get("revision")) is not int:
            return  # the protocol lets nothing else through
        if rng.random() < 0.1:
            data["name"] = rng.choice(sorted(own))
        update = job.update(data["name"], data["revision"], data.get("slices", []), data.get("box", []))
        assert data["name"] not in own, f"an own file of the job was taken as an annotation: {data['name']}"
        assert 1 <= update.revision < 2**53, f"the revision {update.revision} was taken"
        assert update.values.dtype == np.uint8
        assert update.box is None or update.values.shape == tuple(s.stop - s.start for s in update.box)

    return attempt


def hints(folder: Path) -> Attempt:
    """A hints file, or what it says."""
    phantom = two_organs(SHAPE_KJI)
    file = folder / "hints.json"

    def attempt(rng: random.Random) -> None:
        data = altered(_HINTS, rng)
        if rng.random() < 0.2:
            file.write_bytes(damaged(_HINTS.encode(), rng) if rng.random() < 0.7 else json.dumps(data).encode())
            data = io.read_hints(file)
        read = Hints.from_json(data, phantom.classes, phantom.geometry)
        written = read.to_json(phantom.classes)
        _check_numbers(written)
        assert Hints.from_json(json.loads(json.dumps(written, allow_nan=False)), phantom.classes, phantom.geometry) == read

    return attempt


def arrays(folder: Path) -> Attempt:
    """The image, the annotation or an update, damaged on disk."""
    phantom = two_organs(SHAPE_KJI)
    job = Job.open(make_job(folder / "job", phantom))
    np.save(job.path("annotation-0002.npy"), phantom.annotation)
    whole = {name: job.path(name).read_bytes() for name in ("image.npy", "annotation.npy", "annotation-0002.npy")}

    def attempt(rng: random.Random) -> None:
        name = rng.choice(sorted(whole))
        data = damaged(whole[name], rng) if rng.random() < 0.7 else damaged(whole[name][:128], rng) + whole[name][128:]
        temporary = job.path("annotation-9.npy")
        temporary.write_bytes(data)
        temporary.replace(job.path(name))  # a new file: the old one may be mapped
        try:
            if name == "image.npy":
                assert job.channels().shape[1:] == SHAPE_KJI
            elif name == "annotation.npy":
                annotation = job.annotation()
                assert annotation is not None and (annotation.shape, annotation.dtype) == (SHAPE_KJI, np.uint8)
            else:
                assert job.update(name, 2, []).values.shape == SHAPE_KJI
        finally:
            job.path(name).write_bytes(whole[name])

    return attempt


def models(folder: Path) -> Attempt:
    """A model file: its bytes damaged, or anything in it another value. What is read is of numbers, and of a size that it says."""
    import torch

    from sparseseg.network import checkpoint, intensity, unet

    phantom = two_organs(SHAPE_KJI)
    plan = unet.plan_network(4, SHAPE_KJI[1:], 3, 4, 2)
    weights = unet.UNet3d(plan).state_dict()
    good = checkpoint.Checkpoint(plan, weights, (intensity.Intensity(40.0, 12.5, False),), phantom.classes, (2.5, 0.5, 0.5), (0, 2), 4)
    file = folder / "model.pt"
    with open(file, "wb") as stream:
        good.save(stream)
    whole = file.read_bytes()
    holds = torch.load(file, weights_only=True)

    def attempt(rng: random.Random) -> None:
        if rng.random() < 0.5:
            file.write_bytes(damaged(whole, rng))
        else:
            torch.save(altered_model(holds, rng), file)
        read = checkpoint.load(file)
        read.build_network(torch.device("cpu"))
        assert all(torch.isfinite(tensor).all() for tensor in read.weights.values()), "weights that are no numbers were read"
        assert all(0 < spacing < 1e6 for spacing in read.spacing_kji_mm), f"a spacing of {read.spacing_kji_mm} was read"

    return attempt


def altered_model(holds: dict[str, Any], rng: random.Random) -> Any:
    """A copy with one value, at any depth, of another kind or size."""
    import torch

    copy = _copied(holds)
    holder: Any = copy
    while True:
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        if isinstance(holder[key], (dict, list)) and holder[key] and rng.random() < 0.9:
            holder = holder[key]
            continue
        old = holder[key]
        if isinstance(old, torch.Tensor) and rng.random() < 0.8:
            holder[key] = rng.choice((old * float("nan"), old[:0], old.double(), old.to(torch.int8), old.reshape(-1), old * 1e38, old.to_sparse()))
        elif isinstance(holder, dict) and rng.random() < 0.1:
            del holder[key]
        else:
            holder[key] = nonsense(rng)
        return copy


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(v) for key, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


# -- what holds of all that is read ------------------------------------------------------------------------------------


def _check_numbers(data: Any) -> None:
    """Every number is finite, and one that other programs can hold."""
    if isinstance(data, dict):
        for value in data.values():
            _check_numbers(value)
    elif isinstance(data, (list, tuple)):
        for value in data:
            _check_numbers(value)
    elif isinstance(data, (int, float)):
        assert math.isfinite(data) and abs(data) <= 1e300, f"the number {data} was read"
