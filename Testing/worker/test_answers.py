"""One answer to each command, whatever comes when: the worker's own loop in this process, with a session that does nothing but look up."""

import contextlib
import io
import json
import linecache
import queue
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from sparseseg import streams, worker
from sparseseg.contract.errors import AnnotationError, OutputError
from sparseseg.contract.protocol import (
    Cancel,
    Close,
    Error,
    Finish,
    Open,
    Predict,
    Preview,
    Progress,
    Ready,
    Result,
    Train,
    Update,
    Warning,
    decode_event,
    encode,
)
from sparseseg.session.host import Outcome

PATIENCE_S = 30.0


class Pipe(io.RawIOBase):
    """stdin of a host that sends when it wants to."""

    def __init__(self):
        self._lines = queue.SimpleQueue()

    def readline(self, limit=-1):
        return self._lines.get()

    def send(self, *commands):
        for command in commands:
            self._lines.put(encode(command).encode("ascii"))


class Lines(io.StringIO):
    """stdout: what was said, and `closed` for a host that does not read any more."""

    def __init__(self):
        self.events, self.is_gone = [], False

    def write(self, line):
        if self.is_gone:
            raise BrokenPipeError
        self.events.append(decode_event(line))

    def flush(self):
        pass


class Session:
    """Stands for a session: `gate` holds it up, `fails` is raised where it says."""

    opened = None

    def __init__(self, folder, host):
        self.host, self.devices, self.annotation = host, SimpleNamespace(known=None), None
        self.job = SimpleNamespace(folder=folder, record=SimpleNamespace(revision=1))
        self.taken, self.shown, self.ran, self.fails = [], [], [], {}
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()

    @classmethod
    def open(cls, folder, devices, host, *_):
        cls.opened = cls(folder, host)
        return cls.opened

    def _pass_gate(self):
        self.at_gate.set()
        while not self.gate.is_set():
            self.host.tick("prior")
            time.sleep(0.005)

    def _fail(self, where, revision):
        if (where, revision) in self.fails:
            raise self.fails[where, revision]

    def take(self, name, revision, slices, box):
        self._fail("before", revision)
        self.job.record.revision = revision
        self._fail("after", revision)
        self.taken.append(revision)

    def answer(self):
        self.host.tick("prior")
        self._pass_gate()
        self._fail("showing", self.taken[-1] if self.taken else 0)
        if self.taken and self.shown[-1:] != self.taken[-1:]:
            self.shown.append(self.taken[-1])
            for source in ("growing", "prior"):
                self.host.preview("preview.npy", source, 0, self.job.record.revision, None)

    def train(self, *_):
        self.ran.append("train")
        while not self.host.finishing:
            self.host.tick("training", loss={"dice": float("nan")}, eta=float("inf"))
            while (update := self.host.take_update()) is not None:
                update(self)
            self._pass_gate()
            time.sleep(0.005)
        return Outcome("d", "u", None, None, "finish", 3, 1.0, {"a": float("nan")}, 0.5, [], [])

    def predict(self, *_):
        self.ran.append("predict")
        return Outcome("d", "u", None, None, "predicted", 3, 1.0, {}, 1.0, [], [])

    def idle(self):
        pass

    def close(self):
        pass


class Worker(worker.Worker):
    def _end_soon(self, code):
        """Would end the tests."""


class Talk:
    def __init__(self, folder):
        self.pipe, self.lines, self.code = Pipe(), Lines(), None
        self.worker = Worker(self.pipe, self.lines)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        self.pipe.send(Open("open", str(folder), "cpu"))
        self.wait(lambda: self.answers("open"))
        self.session = Session.opened

    def _serve(self):
        with contextlib.suppress(MemoryError):  # as a process that ends
            self.code = self.worker.serve()

    def wait(self, condition):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, self.lines.events[-5:]
            time.sleep(0.005)

    def answers(self, command_id):
        """But the refined preview, which follows an update's answer."""
        events = [e for e in self.lines.events if e.id == command_id and not isinstance(e, Progress)]
        return [e for e in events if not (isinstance(e, Preview) and e.source == "prior")]

    def end(self):
        self.session.gate.set()
        self.pipe.send(Close("close"))
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@pytest.fixture
def talk(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_load_session", lambda: (lambda device: None, Session))
    monkeypatch.setattr(worker.compiled, "warm_up", lambda: False)
    monkeypatch.setattr(streams, "nobody_reads", lambda pipe: pipe.is_gone)
    made = Talk(tmp_path)
    yield made
    made.end()


def updates(first, last):
    return [Update(f"u{n}", f"annotation-{n:04d}.npy", n, [], [[0, 1], [n, n + 1], [0, 1]]) for n in range(first, last + 1)]


def hold(talk, command):
    """Send a command, and hold the worker up in it."""
    talk.session.at_gate.clear()
    talk.session.gate.clear()
    talk.pipe.send(command)
    talk.wait(talk.session.at_gate.is_set)


@pytest.mark.parametrize("first", [Train("t"), updates(2, 2)[0]], ids=["training", "idle"])
def test_of_many_updates_all_are_taken_the_newest_is_shown_and_each_is_answered_once(talk, first):
    hold(talk, first)
    talk.pipe.send(*updates(3, 202))
    talk.wait(lambda: talk.worker._inbox.empty() and len(talk.worker._waiting) == 200)
    talk.session.gate.set()
    talk.wait(lambda: talk.answers("u202"))
    assert talk.session.taken[-200:] == list(range(3, 203))
    assert talk.session.shown[-1] == 202
    assert len(talk.session.shown) <= 2
    for n in range(3, 203):
        assert [(type(e), e.revision, e.file) for e in talk.answers(f"u{n}")] == [(Preview, 202, "preview.npy")]


def test_a_refused_update_among_others_is_answered_on_its_own(talk):
    talk.session.fails["before", 4] = AnnotationError("No background is labelled.")
    hold(talk, Train("t"))
    talk.pipe.send(*updates(3, 5))
    talk.session.gate.set()
    talk.wait(lambda: talk.answers("u5"))
    assert talk.session.taken == [3, 5]
    assert [[type(e) for e in talk.answers(f"u{n}")] for n in (3, 4, 5)] == [[Preview], [Error], [Preview]]


@pytest.mark.parametrize("command", [Train("x"), updates(2, 2)[0], Predict("p")], ids=["train", "update", "none"])
def test_after_cancel_nothing_runs_that_was_sent_before(talk, command):
    if isinstance(command, Predict):
        talk.pipe.send(*updates(2, 40), Train("later"), Cancel("c"))  # at once, to an idle worker
    else:
        hold(talk, command)
        talk.pipe.send(*updates(3, 40), *([] if isinstance(command, Train) else [Train("later"), Predict("p")]), Cancel("c"))
    talk.wait(lambda: talk.answers("c"))
    taken, ran = list(talk.session.taken), list(talk.session.ran)
    assert [type(e) for e in talk.answers("c")] == [Ready]
    assert "predict" not in ran
    for n in range(3, 41):
        [answer] = talk.answers(f"u{n}")
        if isinstance(command, Predict) and n in taken and isinstance(answer, Preview):
            continue  # nothing held the worker, so it may have shown some before it heard of `cancel`
        assert (answer.kind, answer.code) == (("warning", "unshown") if n in taken else ("error", "cancelled"))
    talk.pipe.send(Cancel("again"))
    talk.wait(lambda: talk.answers("again"))
    assert (talk.session.taken, talk.session.ran) == (taken, ran)


@pytest.mark.parametrize("where", ["after", "showing"])
def test_what_fails_once_an_update_is_taken_is_a_warning(talk, where):
    talk.session.fails[where, 2] = OutputError("Could not write in X: no space left.", "Free space.")
    talk.pipe.send(*updates(2, 2))
    talk.wait(lambda: talk.answers("u2"))
    [answer] = talk.answers("u2")
    assert (type(answer), answer.code, answer.revision) == (Warning, "unshown", 2)
    assert "no space left" in answer.sentence


@pytest.mark.parametrize("where", ["after", "showing"])
def test_where_there_is_no_memory_even_to_say_so_what_was_taken_was_not_refused(talk, monkeypatch, where):
    """The first word of it fails, too; the one after finds room."""
    say, failures = talk.worker._say_unshown, [MemoryError()]

    def says(why):
        if failures:
            raise failures.pop()
        say(why)

    monkeypatch.setattr(talk.worker, "_say_unshown", says)
    talk.session.fails[where, 2] = MemoryError()
    talk.pipe.send(*updates(2, 2))
    talk.wait(lambda: talk.answers("u2"))
    [answer] = talk.answers("u2")
    assert (type(answer), answer.code, answer.revision) == (Warning, "unshown", 2)


def test_wherever_memory_ends_what_is_said_of_an_update_is_true(tmp_path, talk, monkeypatch):
    """At each line of the worker that an update comes through, in turn; and there is none for the log either."""
    monkeypatch.setattr(worker._log, "error", lambda *_, **__: (_ for _ in ()).throw(MemoryError))
    tried = 0
    while True:
        other, ended = Talk(tmp_path), MemoryAt(tried)
        handle = other.worker._handle
        monkeypatch.setattr(other.worker, "_handle", lambda command, ended=ended, handle=handle: ended.within(handle, command))
        other.pipe.send(*updates(2, 2), Finish("f"))
        other.wait(lambda other=other: other.answers("f") or not other.thread.is_alive())
        other.end()
        said, is_dead = [e.kind for e in other.answers("u2")], other.code is None
        if not ended.did:
            break
        true = {"error"} if other.session.job.record.revision == 1 else {"preview", "warning"}
        assert (said or is_dead) and set(said) <= true and len(said) < 3, (ended.where, said)  # twice rather than never
        tried += 1
    assert tried > 40


class MemoryAt:
    """MemoryError at the n-th line of worker.py that does something, from where an update is begun."""

    def __init__(self, number):
        self._left, self.did, self.where = number, False, ""

    def within(self, work, command):
        if isinstance(command, Update):
            sys.settrace(self._look)
        try:
            work(command)
        finally:
            sys.settrace(None)

    def _look(self, frame, event, _):
        if frame.f_code.co_filename != worker.__file__ or self.did:
            return None
        if event == "line" and not linecache.getline(worker.__file__, frame.f_lineno).strip().startswith(("try:", "with ")):
            self._left -= 1
            if self._left < 0:
                self.did, self.where = True, f"{frame.f_code.co_name}, line {frame.f_lineno}"
                raise MemoryError
        return self._look


def test_cancelled_while_it_is_shown_an_update_is_taken_all_the_same(talk):
    hold(talk, updates(2, 2)[0])
    talk.pipe.send(Cancel("c"))
    talk.wait(lambda: talk.answers("c"))
    [answer] = talk.answers("u2")
    assert (type(answer), answer.code, answer.revision) == (Warning, "unshown", 2)


def test_finish_is_answered_after_the_result_also_where_it_came_right_behind_the_training(talk):
    talk.pipe.send(Train("t"), Finish("f"), Finish("g"))
    talk.wait(lambda: talk.answers("g") and talk.answers("f"))
    order = [e.id for e in talk.lines.events if isinstance(e, Result | Ready | Warning) and e.id in ("t", "f", "g")]
    assert order[0] == "t" and sorted(order[1:]) == ["f", "g"]
    assert talk.answers("t")[0].estimate == {}  # not a number: left out


def test_no_more_wait_than_fit(talk, monkeypatch):
    monkeypatch.setattr(worker, "_MOST_WAITING", 3)
    hold(talk, Train("t"))
    talk.pipe.send(*updates(3, 7))
    talk.wait(lambda: talk.answers("u7"))
    assert [e.code for n in (6, 7) for e in talk.answers(f"u{n}")] == ["busy", "busy"]
    talk.session.gate.set()
    talk.wait(lambda: talk.answers("u5"))
    assert talk.session.taken == [3, 4, 5]


def test_updates_for_another_job_wait_until_that_is_open(talk, tmp_path):
    first = talk.session
    hold(talk, updates(2, 2)[0])
    talk.pipe.send(Open("other", str(tmp_path), "cpu"), *updates(3, 3))
    talk.wait(lambda: len(talk.worker._waiting) == 2)
    first.gate.set()
    talk.wait(lambda: talk.answers("u3"))
    talk.session = Session.opened
    assert (first.taken, talk.session.taken) == ([2], [3])


def test_closing_answers_what_waits(talk):
    hold(talk, updates(2, 2)[0])
    talk.pipe.send(*updates(3, 9), Train("t"), Close("x"))
    talk.thread.join(PATIENCE_S)
    assert talk.code == 0
    assert [e.code for n in range(3, 10) for e in talk.answers(f"u{n}")] == ["cancelled"] * 7
    assert [e.code for e in talk.answers("t")] == ["cancelled"]


@pytest.mark.parametrize("busy", [True, False])
def test_a_host_that_does_not_listen_any_more_ends_the_work(talk, busy):
    if busy:
        hold(talk, Train("t"))
    talk.lines.is_gone = True
    talk.thread.join(PATIENCE_S)
    assert talk.code == 141


def test_what_is_quoted_of_a_command_is_bounded(talk):
    long = "é" * 150_000
    lines = [json.dumps({"command": long, "id": "x"}, ensure_ascii=False), json.dumps({"command": "cancel", "id": long}, ensure_ascii=False)]
    for line in lines:
        talk.pipe._lines.put(line.encode() + b"\n")
    talk.session.fails["before", 2] = AnnotationError(long, long)
    talk.pipe.send(*updates(2, 2), Open("p", long, "cpu"), Cancel("c"))
    talk.wait(lambda: talk.answers("c"))
    assert [e.code for e in talk.lines.events if isinstance(e, Error) and e.id == ""] == ["protocol", "protocol"]


def test_logs_that_cannot_be_written_are_told_of_once(talk, tmp_path):
    folder = tmp_path / "other"
    (folder / "events.jsonl").mkdir(parents=True)
    (folder / "log.txt").mkdir()
    talk.pipe.send(Open("o", str(folder), "cpu"))
    talk.wait(lambda: talk.answers("o"))
    talk.pipe.send(Cancel("c"))
    talk.wait(lambda: talk.answers("c"))
    talk.session = Session.opened
    assert len([e for e in talk.lines.events if isinstance(e, Warning) and e.code == "log"]) == 2
    assert len(talk.answers("o")) == 1
