"""The host's side of one job: it paints, sends what it painted, remembers what it was told, and knows what must be on disk.

The job folder is read here as docs/job-folder.md says, not by the engine's own code.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phantoms import Phantom, make_job, two_organs
from sparseseg.contract.job import remove_job
from sparseseg.contract.settings import Settings

from .engine import Engine, Events, processes_left, verdict
from .trial import Broken, Trial

SHAPE_KJI = (10, 16, 16)
QUICK = {"width": 4, "depth": 2, "patch_voxels": 16**2, "refine": False, "estimate": False, "steps": 3}
FILES = re.compile(  # all that docs/job-folder.md lists, and no `.part`
    r"job\.json|(image|annotation|annotation-\d+.*|dense|uncertainty|weights|grown|prior|network|preview-.*)\.npy|model\.pt|report\.json|events\.jsonl|log\.txt|lock|host\.lock"
)


@dataclass
class Sent:
    """An annotation that the worker was told of: (K, J, I) uint8, and the complete slices."""

    annotation: np.ndarray
    slices: list[list[int]]
    fields: dict[str, Any]
    may_be_taken: bool = True


class Painter:
    """One job with a phantom in it. `sent` is what each revision must be."""

    def __init__(self, trial: Trial, name: str = "job", shape_kji: tuple[int, int, int] = SHAPE_KJI, **settings: Any) -> None:
        self.trial, self.rng, self.folder = trial, trial.rng, trial.folder / name
        self.phantom: Phantom = two_organs(shape_kji, trial.rng.randrange(1000))
        self.settings = replace(Settings(), **{**QUICK, **settings})
        make_job(self.folder, self.phantom, self.settings)
        self.canvas = self.phantom.annotation.copy()
        self.slices: list[list[int]] = []
        self.sent = {1: Sent(self.canvas.copy(), [], {})}
        self.revision = 1  # the last one that was given out
        self.taken = 1  # the last one that the worker is known to have
        self.acknowledged = {1}  # those that the worker said it has taken
        self._unsaid: list[Sequence[slice]] = []  # boxes painted since then

    # -- painting ------------------------------------------------------------------------------------------------------

    def paint(self, whole: bool | None = None) -> dict[str, Any]:
        """Some strokes, in a file of the job; the fields of the `update` that names it. whole: all of the volume, or the box that changed."""
        for _ in range(self.rng.choice((1, 1, 3))):
            self._stroke()
        if self.rng.random() < 0.3:
            self.slices = [*self.slices, [0, self.rng.randrange(self.canvas.shape[0])]]
        whole = self.rng.random() < 0.5 if whole is None else whole
        box = [] if whole else _hull(self._unsaid)
        self.revision += self.rng.choice((1, 1, 1, 5))
        values = self.canvas if whole else self.canvas[tuple(slice(*pair) for pair in box)]
        fields = {"annotation": self.write(values), "revision": self.revision, "complete_slices": list(self.slices), "box": box}
        self.sent[self.revision] = Sent(self.canvas.copy(), list(self.slices), fields)
        return fields

    def write(self, values: np.ndarray) -> str:
        """A new annotation's file for the last revision, whole when it gets its name."""
        name = f"annotation-{self.revision:04d}.npy"
        temporary = self.folder / f".{name}.{os.getpid()}.part"
        with open(temporary, "wb") as file:
            np.save(file, values)
        os.replace(temporary, self.folder / name)
        return name

    def _stroke(self) -> None:
        """A small box of truth, of nothing, or of another label; never on the middle slice, so that each class keeps a voxel."""
        rng, shape = self.rng, self.canvas.shape
        sides = [rng.choice((1, 2, 5)) for _ in shape]
        first = [rng.randrange(n - side + 1) for n, side in zip(shape, sides, strict=True)]
        middle = shape[0] // 2
        if first[0] <= middle < first[0] + sides[0]:
            first[0], sides[0] = 0, 1
        box = tuple(slice(a, a + n) for a, n in zip(first, sides, strict=True))
        what = rng.randrange(4)
        self.canvas[box] = self.phantom.truth[box] + 1 if what < 2 else 0 if what == 2 else rng.randrange(1, 4)
        self._unsaid.append(box)

    def again(self, revision: int) -> dict[str, Any]:
        """The fields of the same update once more, its file written anew, as a host does that has no answer."""
        sent = self.sent[revision]
        box = tuple(slice(*pair) for pair in sent.fields["box"]) or ...
        last, self.revision = self.revision, revision
        self.write(sent.annotation[box])
        self.revision = last
        return sent.fields

    def heard(self, event: dict[str, Any]) -> None:
        """What any event says of the annotation: the worker has this revision, so boxes need hold only what came later."""
        if event["event"] == "result" or verdict(event) == "taken" or (event["event"] == "ready" and event.get("job")):
            self.taken = max(self.taken, event["revision"])
            if self.taken == self.revision:
                self._unsaid.clear()

    # -- what must be true ---------------------------------------------------------------------------------------------

    def on_disk(self) -> tuple[int, np.ndarray, list[list[int]]]:
        """(revision, annotation, complete slices) as any reader of the folder finds them. Raises Broken where they cannot be read."""
        try:
            record = json.loads((self.folder / "job.json").read_text("ascii"))
            annotation = np.load(self.folder / record["annotation"])
            for change in record.get("changes", []):
                annotation[tuple(slice(*pair) for pair in change["box"])] = np.load(self.folder / change["file"])
            return record["revision"], annotation, record["complete_slices"]
        except (OSError, ValueError, KeyError) as error:
            raise Broken(f"the job on disk cannot be read: {error!r}") from error

    def check_strokes(self) -> int:
        """The strokes on disk are those of one revision that was sent, byte for byte, and no older one than was answered. The revision."""
        revision, annotation, slices = self.on_disk()
        require = self.trial.require
        require(revision in self.sent and self.sent[revision].may_be_taken, f"revision {revision} on disk was never sent, or was refused")
        sent = self.sent[revision]
        same = annotation.dtype == np.uint8 and np.array_equal(annotation, sent.annotation)
        require(same, f"the strokes on disk are not those of their revision {revision}")
        require(slices == sent.slices, f"complete slices on disk {slices}, sent {sent.slices}")
        require(revision >= self.taken, f"revision {self.taken} was shown to the user, {revision} is on disk")
        return revision

    def check_words(self, events: Events) -> None:
        """What was said of each update is what is on disk: taken, or refused and unchanged; never both."""
        revision = self.on_disk()[0]
        for number in self.sent:
            said = {verdict(e): e.get("sentence", "") for e in events if e["id"] == f"u{number}" and verdict(e)}
            self.trial.require(len(said) < 2, f"update {number} was taken and refused: {said}")
            if "taken" in said:
                self.acknowledged.add(number)
                self.trial.require(revision >= number, f"update {number} was taken, they say; revision {revision} is on disk")
            if "refused" in said:
                words = f"update {number} was refused, they say ({said['refused']}); but it is what is on disk"
                self.trial.require(revision != number, words)

    def check_recovery(self, goes_on: bool = False) -> None:
        """After a fault: a new worker opens the job, takes the update that is in doubt, trains if `goes_on`, and nothing is left behind."""
        before = self.check_strokes()
        engine = Engine(self.trial, copied=True)
        ready = engine.open(self.folder)
        self.trial.require(ready["event"] == "ready", f"the job does not open again: {ready.get('sentence')}")
        self.trial.require(ready["revision"] == before, f"revision {before} on disk, but {ready['revision']} is opened")
        self.heard(ready)
        left = sorted(path.name for path in self.folder.glob("preview-*"))
        if left:
            self.trial.broke(f"previews of a dead session after open: {left[:3]}")
        old = [name for name in self._unnamed() if int(name[11:15]) <= before]
        if old:
            self.trial.broke(f"annotations that were superseded, after open: {old[:3]}")
        if len(self.sent) > 1 and self.sent[max(self.sent)].may_be_taken:
            last = max(self.sent)
            engine.send("update", f"u{last}", **self.again(last))
            answer = engine.verdict(f"u{last}")
            self.trial.require(verdict(answer) == "taken", f"update {last} sent again is not welcome: {answer.get('sentence')}")
            self.heard(answer)
            self.trial.require(self.check_strokes() == last, f"update {last} sent again is not on disk")
        if goes_on:
            engine.send("train", "on", settings={"steps": 2})
            self.trial.require(engine.answer("on", "result", "error")["event"] == "result", f"training does not go on; {engine.last}")
        self.trial.require(engine.end() == 0, f"after recovery: {engine.last}")
        self.check_strokes()
        self.check_nothing_left(engine)

    def check_nothing_left(self, *engines: Engine) -> None:
        """No half files, no superseded annotations, no processes, nothing in the place for temporary files; and all of the job can be removed."""
        for number in set(self.sent) - self.acknowledged:  # refused or never read: the host's own to remove
            (self.folder / f"annotation-{number:04d}.npy").unlink(missing_ok=True)
        strange = [path.name for path in self.folder.iterdir() if not FILES.fullmatch(path.name)]
        self.trial.require(not strange, f"left in the job folder: {strange[:3]}")
        self.trial.require(not self._unnamed(), f"superseded annotations left: {self._unnamed()[:3]}")
        if hasattr(os, "killpg"):
            self.trial.require(not any(processes_left(engine.pid) for engine in engines), "a process of the worker lives on")
        self.trial.require(not self.trial.left(), f"left in the folder for temporary files: {self.trial.left()[:3]}")
        remove_job(self.folder)
        self.trial.require(not self.folder.exists(), "removing the job leaves something")

    def _unnamed(self) -> list[str]:
        """Files of annotations that the record does not name."""
        record = json.loads((self.folder / "job.json").read_text("ascii"))
        named = {record["annotation"], *(change["file"] for change in record.get("changes", []))}
        return sorted(path.name for path in self.folder.glob("annotation-*") if path.name not in named)


def _hull(boxes: Sequence[Sequence[slice]]) -> list[list[int]]:
    return [[min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)] for axis in range(3)]
