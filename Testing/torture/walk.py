"""Random walks of commands. A model of docs/protocol.md knows what may be answered, and what must be on disk.

Of each command it is checked: one answer, of a kind that its state allows; none after a `cancel` that came later; a revision that never goes back.
Whenever nothing is at work, the strokes on disk are those of the last update that was taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from .deaths import LONG
from .engine import PATIENCE_S, Engine, verdict
from .painter import Painter
from .trial import Broken, Trial

# by what a command may be answered at last
ANSWERS = {
    "open": {"ready", "error"},
    "train": {"result", "error"},
    "predict": {"result", "error"},
    "update": {"preview", "error", "warning"},
    "cancel": {"ready"},
    "finish": {"ready", "warning", "error"},
}
_CHOICES = (
    "train",
    "update",
    "update",
    "update",
    "update",
    "bad update",
    "finish",
    "cancel",
    "cancel",
    "predict",
    "open",
    "bad open",
    "junk",
    "wait",
    "wait",
    "idle",
)
STEPS = 120  # of a walk
FINISH_AGAIN_S = 5.0  # a `finish` behind other commands is for what is at work when its turn comes
_PAUSES_S = (0.0, 0.0, 0.0, 0.02, 0.2)


@dataclass
class Sending:
    """A command on its way, and how it was answered."""

    command: str
    busy: bool  # whether `busy` may be its answer: a run was unanswered
    must_fail: bool = False
    revision: int = 0
    answer: dict[str, Any] | None = None
    cancelled: bool = False  # a later `cancel` was answered


class Walk:
    def __init__(self, trial: Trial) -> None:
        self.trial, self.rng = trial, trial.rng
        self.painter, self.engine = Painter(trial), Engine(trial, copied=True)
        self.sent: dict[str, Sending] = {}
        self.junk = self.complaints = 0  # lines that are no commands, and answers to such
        self.revision = 0  # of the last event
        self.history: list[str] = []

    # -- what may be said ----------------------------------------------------------------------------------------------

    def listen(self, patience_s: float) -> None:
        """Take in what arrives within this time."""
        end = time.monotonic() + patience_s
        while self.engine.next(max(end - time.monotonic(), 0.0)) is not None:
            self._check(self.engine.events[-1])

    def _check(self, event: dict[str, Any]) -> None:
        self.painter.heard(event)
        kind, id = event["event"], event["id"]
        require = self._require
        require(kind not in ("no event", "half a line"), f"no event: {event.get('sentence')}")
        require(event.get("code") != "internal" or "No job is open" in event["sentence"], f"unexpected: {event.get('sentence')}")
        require(not event.get("fatal"), f"the worker gave up: {event.get('sentence')}")
        if not id:
            self.complaints += event.get("code") == "protocol"
            return
        require(id in self.sent, f"an answer to {id}, which was never sent")
        sending = self.sent[id]
        require(not sending.cancelled or kind == "warning", f"{kind} for {id} after a later cancel was answered")
        self._check_revision(event, sending)
        if kind in ANSWERS[sending.command]:
            self._answered(id, sending, event)

    def _check_revision(self, event: dict[str, Any], sending: Sending) -> None:
        if sending.command == "open" and event["event"] == "ready":
            self.revision = event["revision"]  # of the job on disk
        self._require(
            event["revision"] >= self.revision or event["revision"] == 0, f"the revision goes back from {self.revision} to {event['revision']}"
        )
        self.revision = event["revision"]

    def _answered(self, id: str, sending: Sending, event: dict[str, Any]) -> None:
        kind, before = event["event"], sending.answer
        if kind == "warning" and event["code"] not in ("idle", "unshown"):
            return
        if before is not None:  # an update may be shown again, refined
            again = sending.command == "update" and kind == "preview" and verdict(before) == "taken"
            self._require(again, f"{id} is answered by {before['event']} ({before.get('code')}) and by {kind} ({event.get('code')})")
            return
        sending.answer = event
        self._require(not sending.must_fail or kind == "error", f"{id} should have been refused, got {kind}")
        if event.get("code") == "busy":
            self._require(sending.busy, f"{id} was told that the worker is busy, but nothing was at work")
        if sending.command == "update" and verdict(event) == "taken":
            self.painter.acknowledged.add(sending.revision)
            self._require(event["revision"] >= sending.revision, f"{id} of revision {sending.revision} is answered by one of {event['revision']}")
        if sending.command == "cancel":
            self._cancelled(id)

    def _cancelled(self, cancel: str) -> None:
        """All that came before it is answered by now, and stays silent from here on."""
        for id, sending in self.sent.items():
            if id == cancel:
                return
            self._require(sending.answer is not None, f"{cancel} is answered, but {id} before it is not")
            sending.cancelled = True

    def _require(self, kept: object, words: str) -> None:
        if not kept:
            raise Broken(f"{words}; sent: {self.sent_last}")

    @property
    def sent_last(self) -> str:
        return " ".join(self.history[-12:])

    # -- what is sent --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        choice = self.rng.choice(_CHOICES)
        if choice == "wait":
            self.listen(self.rng.random())
        elif choice == "idle":
            self.settle()
        elif choice == "junk":
            self.history.append("junk")
            self.engine.raw(self.rng.choice((b"{}\n", b"junk\n", b'{"command":"dance","id":"j"}\n', b'["open"]\n', b'{"command":"open","id":3}\n')))
            self.junk += 1
        elif choice == "update":
            self._send("update", **self.painter.paint())
        elif choice == "bad update":
            self._send_bad_update()
        elif choice == "train":
            self._send("train", settings=self.rng.choice((LONG, {"steps": 1}, {"steps": 3})), resume=self.rng.random() < 0.8)
        elif choice in ("open", "bad open"):
            self._open(bad=choice == "bad open")
        else:
            self._send(choice)
        if choice != "wait":
            self.trial.tried += 1
        self.listen(self.rng.choice(_PAUSES_S))

    def _send(self, command: str, must_fail: bool = False, **fields: Any) -> str:
        id = f"{command[0]}{len(self.sent)}"
        at_work = [s for s in self.sent.values() if s.answer is None]
        busy = any(s.command in ("train", "predict") for s in at_work)
        self.sent[id] = Sending(command, busy, must_fail, fields.get("revision", 0))
        self.history.append(f"{id}{'!' if must_fail else ''}")
        self.engine.send(command, id, **fields)
        return id

    def _send_bad_update(self) -> None:
        old, new = self.painter.taken, self.painter.revision + 1000
        good = self.painter.sent[self.painter.revision]
        self._send(
            "update",
            must_fail=True,
            **self.rng.choice(
                (
                    {"annotation": f"annotation-{new:04d}.npy", "revision": new},  # no such file
                    {"annotation": "job.json", "revision": new},
                    {"annotation": "image.npy", "revision": new},
                    {"annotation": "../annotation.npy", "revision": new},
                    {"annotation": "annotation.npy", "revision": max(old - 1, 0)},
                    {"annotation": good.fields.get("annotation", "annotation.npy"), "revision": new, "box": [[0, 1], [5, 2], [0, 1]]},
                    {"annotation": "annotation.npy", "revision": new, "complete_slices": [[0, 10_000]]},
                )
            ),
        )

    def _open(self, bad: bool = False) -> None:
        folder = self.trial.folder / "no job" if bad else self.painter.folder
        self._send("open", must_fail=bad, job=str(folder), device="cpu", protocol=4)

    def settle(self) -> None:
        """Until nothing is at work: then all is answered, and the strokes on disk are those of the last update that was taken."""
        self.history.append("settle")
        if self.rng.random() < 0.5:
            self._send("cancel")
        begin, asked = time.monotonic(), 0.0
        while waiting := [id for id, s in self.sent.items() if s.answer is None]:
            now = time.monotonic()
            if now - begin > PATIENCE_S:
                raise Broken(f"no answer to {waiting[:5]}; {self.engine.last}; it is at {self.engine.where()}; sent: {self.sent_last}")
            if now - asked > FINISH_AGAIN_S and any(self.sent[id].command == "train" for id in waiting):
                self._send("finish")
                asked = now
            self._require(self.engine.process.poll() is None, f"the worker ended; {self.engine.last}")
            self.listen(0.05)
        begin = time.monotonic()
        while self.complaints < self.junk and time.monotonic() - begin < PATIENCE_S:  # nothing else tells that a complaint is still on its way
            self.listen(0.05)
        self.listen(0.05)  # one too many
        self._require(self.complaints == self.junk, f"{self.junk} lines that are no commands, {self.complaints} complaints")
        if self.engine.events[-1].get("revision"):
            self.check_disk()

    def check_disk(self) -> None:
        revision = self.painter.check_strokes()
        taken = [s.revision for s in self.sent.values() if s.command == "update" and s.answer and verdict(s.answer) == "taken"]
        self._require(revision == max([1, *taken]), f"revision {revision} on disk; {max([1, *taken])} was the last that was taken")


def walk(trial: Trial) -> None:
    """Some hundred commands to one worker, at random, often while others are at work."""
    wanders = Walk(trial)
    wanders._open()
    wanders.listen(0.5)
    for _ in range(40 if trial.quick else STEPS):
        wanders.step()
    wanders.settle()
    trial.require(wanders.engine.end() == 0, f"at the end: {wanders.engine.last}")
    wanders.painter.check_recovery()
