"""One training's side of the pipe, with a scripted worker: no stroke is lost, whatever the worker refuses or loses."""

import os
import threading
import time

import numpy as np
import pytest

from sparseseg.contract import box as box_module
from sparseseg.contract.box import box_from_json
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import JobError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import JobRecord
from sparseseg.contract.lock import Owner
from sparseseg.contract.protocol import PROTOCOL_VERSION, Error, Open, Preview, Progress, Ready, Train, Update, Warning
from sparseseg.contract.settings import Settings
from SparseSegSlicerLib.session.EngineRun import EngineRun

SHAPE = (6, 7, 8)


class Worker:
    """A client that remembers commands and says what it is told to. It keeps the annotation that it was sent, as the worker would."""

    made: list

    def __init__(self, **_):
        self.sent, self.events, self.killed, self.log, self.pid = [], [Ready("", 0, PROTOCOL_VERSION, 7, {}, "", "")], False, "", 7
        self.made.append(self)

    def send(self, command):
        self.sent.append(command)

    def poll(self):
        events, self.events = self.events, []
        return events

    def kill(self):
        self.killed = True

    def close(self, grace_s=0):
        thread = threading.Thread(target=lambda: None)
        thread.start()
        return thread

    def updates(self):
        return [command for command in self.sent if isinstance(command, Update)]


class Session:
    def __init__(self, tmp_path, image=None):
        self.workers = []
        kind = type("Scripted", (Worker,), {"made": self.workers})
        self.annotation = np.zeros(SHAPE, np.uint8)
        self.annotation[0, 0, :2] = (1, 2)
        self.held, self.revision = self.annotation.copy(), 1  # what the worker's job holds
        geometry = Geometry.from_ijk_to_ras(SHAPE, np.eye(4))
        record = JobRecord(geometry, ClassTable((Segment("a", "A", (1, 0, 0)),)), Settings())
        self.run = EngineRun(
            np.zeros(SHAPE, np.int16) if image is None else image, self.annotation, record, parentFolder=str(tmp_path), makeClient=kind
        )
        self.run.train(Settings())

    @property
    def worker(self):
        return self.workers[-1]

    def poll(self, until=lambda: True):
        events, end = [], time.monotonic() + 20
        while True:
            events += self.run.poll()
            if until():
                return events
            assert time.monotonic() < end
            time.sleep(0.005)

    def open(self):
        self.poll(lambda: any(isinstance(command, Open) for command in self.worker.sent))
        self.worker.events.append(Ready("open", self.revision, PROTOCOL_VERSION, 7, {}, "CPU", ""))
        self.poll()

    def paint(self, place, value=2):
        """A stroke, told to the run as the Controller does."""
        self.annotation[place] = value
        box = tuple(slice(n, n + 1) for n in place)
        return self.run.update(self.annotation, (), [box])

    def idle(self):
        self.poll(lambda: not self.run._writing)

    def send(self, place):
        """A stroke, whose update leaves."""
        self.paint(place)
        self.idle()

    def adopt(self, update):
        """The worker takes an update up, and shows it."""
        values, box = np.load(self.run.folder / update.annotation), box_from_json(update.box, SHAPE)
        assert update.revision > self.revision
        self.held[... if box is None else box] = values
        self.revision = update.revision
        self.worker.events.append(Preview(update.id, self.revision, "file", "growing", 0, 0.0, [[0, 1], [0, 1], [0, 1]]))

    def refuse(self, update):
        self.worker.events.append(Error(update.id, self.revision, "annotation", "No voxel is painted in A.", ""))

    def check(self):
        assert np.array_equal(self.held, self.annotation), "a stroke was lost"


@pytest.fixture
def session(tmp_path):
    made = Session(tmp_path)
    yield made
    made.run.close().join()


def test_an_image_of_several_channels_is_written_and_known_again(tmp_path):
    image = np.random.default_rng(0).integers(0, 9, (3, *SHAPE)).astype(np.int16)
    session = Session(tmp_path, image)
    session.open()
    changed = image.copy()
    changed[2, 5, 6, 7] += 1
    assert session.run.hasImage(image) and session.run.hasImage(image[0])
    assert not any(map(session.run.hasImage, (changed, image[:2], image[1])))
    session.run.close().join()


def test_an_image_may_be_made_in_the_thread_that_writes_it(tmp_path):
    image, threads = np.ones((2, *SHAPE), np.float32), []

    def make(_store):
        threads.append(threading.current_thread())
        return image

    session = Session(tmp_path, make)
    session.open()
    assert session.run.hasImage(image) and threads != [threading.main_thread()]
    session.run.close().join()


def test_a_stroke_leaves_as_its_box(session):
    session.open()
    session.send((3, 4, 5))
    [update] = session.worker.updates()
    assert (update.id, update.revision, update.box) == ("update-2", 2, [[3, 4], [4, 5], [5, 6]])
    assert np.load(session.run.folder / update.annotation).shape == (1, 1, 1)
    session.adopt(update)
    session.check()


def test_everything_or_nothing_painted(session):
    session.open()
    session.annotation[...] = 1
    session.run.update(session.annotation, (), [tuple(slice(0, n) for n in SHAPE)])
    session.idle()
    session.run.update(session.annotation, ((0, 2),), [])
    session.idle()
    everything, nothing = session.worker.updates()
    assert everything.box == []
    assert (nothing.box, nothing.complete_slices) == ([[0, 1]] * 3, [[0, 2]])
    for update in (everything, nothing):
        session.adopt(update)
    session.check()


def test_updates_leave_together_while_one_is_being_written(session):
    session.open()
    for place in ((1, 1, 1), (2, 3, 4), (5, 1, 6)):
        session.paint(place)
    session.idle()
    first, rest = session.worker.updates()
    assert first.revision == 2
    assert (rest.revision, rest.box) == (4, [[2, 6], [1, 4], [4, 7]])
    for update in (first, rest):
        session.adopt(update)
    session.check()


def test_updates_before_the_job_is_open_are_one(session):
    for place in ((1, 1, 1), (2, 3, 4)):
        session.paint(place)
    session.open()
    session.idle()
    kinds = [type(command) for command in session.worker.sent]
    assert kinds == [Open, Train, Update]
    session.adopt(session.worker.updates()[0])
    session.check()


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
def test_a_worker_that_dies_gets_again_what_it_had_not_taken(session, taken):
    session.open()
    for place in ((1, 1, 1), (2, 3, 4), (5, 1, 6)):
        session.paint(place)
        session.idle()
    updates = session.worker.updates()
    for update in updates[:taken]:
        session.adopt(update)
    session.worker.events.append(Error("", session.revision, "worker", "The engine process ended unexpectedly.", "", fatal=True))
    events = session.poll(lambda: len(session.workers) == 2)
    assert isinstance(events[-1], Warning) and session.workers[0].killed
    session.paint((4, 4, 4))  # while it starts
    session.open()
    session.idle()
    [again] = session.worker.updates()
    assert again.box[0][0] == (1, 2, 4, 4)[taken], "from the first that it had not taken"
    session.adopt(again)
    session.check()


def test_a_worker_that_dies_while_an_update_is_written(session):
    session.open()
    session.run._background.submit(lambda: time.sleep(0.2), lambda _: None, lambda _: None)
    session.paint((1, 1, 1))
    session.worker.events.append(Error("", 1, "stuck", "A step did not end.", "", fatal=True))
    session.poll(lambda: len(session.workers) == 2)
    session.worker.events.append(Ready("open", 1, PROTOCOL_VERSION, 7, {}, "CPU", ""))
    session.poll(lambda: session.worker.updates() and not session.run._writing)
    assert not session.workers[0].updates()
    session.adopt(session.worker.updates()[-1])
    session.check()


def test_a_refused_update_goes_with_the_next(session):
    session.open()
    session.send((1, 1, 1))
    session.refuse(session.worker.updates()[0])
    session.poll()
    session.idle()
    assert len(session.worker.updates()) == 1, "refused again and again helps nobody"
    session.send((2, 2, 2))
    session.adopt(session.worker.updates()[-1])
    session.check()


def test_a_refused_update_is_made_up_for_where_the_next_one_has_left(session):
    session.open()
    session.send((1, 1, 1))
    session.send((2, 2, 2))
    first, second = session.worker.updates()
    session.refuse(first)
    session.adopt(second)
    session.poll(lambda: len(session.worker.updates()) == 3)
    session.idle()
    session.adopt(session.worker.updates()[-1])
    session.poll()
    session.check()
    assert not session.run._underWay


def test_strokes_far_apart_leave_as_updates_of_their_own(session, monkeypatch):
    monkeypatch.setattr(box_module, "_TOGETHER_VOXELS", 10)
    session.paint((1, 1, 1))
    session.paint((5, 6, 7))
    session.paint((5, 6, 6))
    session.open()
    session.poll(lambda: len(session.worker.updates()) == 2 and not session.run._writing)
    first, second = session.worker.updates()
    assert (first.box, second.box) == ([[1, 2], [1, 2], [1, 2]], [[5, 6], [6, 7], [6, 8]])
    assert second.revision == first.revision + 1 == session.run.revision
    session.adopt(first)
    session.adopt(second)
    session.poll()
    session.check()


def test_parts_that_are_refused_by_themselves_go_together_before_anything_is_told(session, monkeypatch):
    """Such as where a segment's only stroke went in one, and came again in the other."""
    monkeypatch.setattr(box_module, "_TOGETHER_VOXELS", 10)
    session.open()
    session.send((1, 1, 1))
    session.send((5, 6, 7))
    first, second = session.worker.updates()
    session.refuse(first)
    assert not session.poll()
    session.refuse(second)
    assert not session.poll(lambda: len(session.worker.updates()) == 3)
    session.idle()
    both = session.worker.updates()[-1]
    assert both.box == [[1, 6], [1, 7], [1, 8]]
    session.refuse(both)
    [told] = session.poll()
    assert isinstance(told, Error) and len(session.worker.updates()) == 3
    session.send((0, 0, 0))
    session.adopt(session.worker.updates()[-1])
    session.poll()
    session.check()
    assert not session.run._owed


def files_of_updates(session):
    return [path.name for path in session.run.folder.glob("annotation-*.npy")]


def test_files_of_refused_and_of_adopted_updates_do_not_stay(session):
    """The engine takes away what it adopts; what it refuses, or answers with a later one, the run does."""
    session.open()
    for n in range(5):
        session.send((1, 1, n))
        session.refuse(session.worker.updates()[-1])
        session.poll()
    session.send((2, 2, 2))
    session.adopt(session.worker.updates()[-1])
    session.poll(lambda: not files_of_updates(session))
    session.check()


def test_a_warning_that_names_the_revision_is_an_answer_too(session):
    session.open()
    session.send((1, 1, 1))
    (update,) = session.worker.updates()
    session.worker.events.append(Warning(update.id, update.revision, "unshown", "The new annotation is kept, but ...", ""))
    session.poll()
    assert not session.run._underWay and not session.run._owed


def test_a_run_owns_its_job_from_the_start_and_leaves_nothing(session, tmp_path):
    session.poll(lambda: any(isinstance(command, Open) for command in session.worker.sent))
    (opened,) = (command for command in session.worker.sent if isinstance(command, Open))
    assert opened.owner == os.getpid()
    with pytest.raises(JobError, match="already open"):
        Owner(session.run.folder)
    session.run.close().join()
    assert not list(tmp_path.glob("sparseseg-*"))


def test_a_full_disk_keeps_the_stroke_for_later(session, monkeypatch):
    from SparseSegSlicerLib.session import EngineRun as module

    session.open()
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_whole", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        session.paint((1, 1, 1))
        events = session.poll(lambda: not session.run._writing) + session.run.poll()
    assert [event.sentence for event in events if isinstance(event, Error)] == ["The new strokes could not be written: No space left on device."]
    session.send((2, 2, 2))
    session.adopt(session.worker.updates()[-1])
    session.check()


def test_every_preview_is_handed_over_also_an_older_one(session):
    session.open()
    session.paint((1, 1, 1))
    boxes = [Preview("train", 1, f"file {n}", "prior", n, 0.0, [[0, 1]] * 3) for n in range(3)]
    session.worker.events += boxes
    assert [event for event in session.poll() if isinstance(event, Preview)] == boxes


def test_progress_acknowledges_too(session):
    session.open()
    session.send((1, 1, 1))
    assert session.run._underWay
    session.worker.events.append(Progress("train-1", 2, "training", 1, 0.0, None, 0.0, {}, {}))
    session.poll()
    assert not session.run._underWay


def test_a_lost_server_is_not_started_again_by_the_run(session):
    """Its client has tried for long enough; a key that is refused again and again locks an account."""
    session.open()
    session.worker.events.append(Error("", 1, "connection", "The server does not accept your key.", "", fatal=True))
    [event] = [event for event in session.poll() if isinstance(event, Error)]
    assert event.fatal and len(session.workers) == 1


def test_the_client_is_told_of_the_server(tmp_path):
    given = {}

    def make(**arguments):
        given.update(arguments)
        return type("Scripted", (Worker,), {"made": []})()

    geometry = Geometry.from_ijk_to_ras(SHAPE, np.eye(4))
    record = JobRecord(geometry, ClassTable((Segment("a", "A", (1, 0, 0)),)), Settings())
    image, annotation = np.zeros(SHAPE, np.int16), np.ones(SHAPE, np.uint8)
    run = EngineRun(image, annotation, record, environment={"PATH": "/bin"}, parentFolder=str(tmp_path), makeClient=make, server="ssh://gpu")
    run.close().join()
    assert given == {"environment": {"PATH": "/bin"}, "engine": "ssh://gpu"}


def test_a_worker_of_another_version_is_refused_in_words(session):
    session.worker.events = [Ready("", 0, PROTOCOL_VERSION + 1, 7, {}, "", "")]
    [event] = session.poll(lambda: True)
    assert event.fatal
    assert event.sentence == f"The engine speaks version {PROTOCOL_VERSION + 1} of the protocol, this module version {PROTOCOL_VERSION}."
    assert event.advice == "Repair the installation."
