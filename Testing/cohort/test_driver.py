"""The driver: each volume once, whatever dies, and the manifest true; with those that segment played by the test."""

import os
import signal
from collections import deque
from functools import cache
from pathlib import Path

import pytest
from untrained import save_model

from sparseseg import cli
from sparseseg.cohort import segment
from sparseseg.cohort.actors import Answer, Servant, Setting, Task, error_json
from sparseseg.cohort.manifest import Manifest
from sparseseg.cohort.segmenting import Segmenter, sha256_of
from sparseseg.contract.errors import InputError, OutputError, TooLargeError, WorkerError
from sparseseg.contract.lock import HOST_LOCK, Lock
from sparseseg.network import device

CHOSEN = cache(device.choose)  # trying a device takes longer than the rest
GONE = error_json(WorkerError("The process that segmented it was killed.", "Use fewer actors."))


class Actors:
    """`count` at once, each volume at the next look, in this process; `dies` says of a name and its try what becomes of it instead."""

    def __init__(self, setting, count=2, dies=lambda name, number: None):
        self._servant, self._count, self._dies = Servant(setting), count, dies
        self._tasks = deque()
        self.tries, self.most, self.closed = {}, 0, 0

    def free(self):
        return [("host", os.getpid())] * (self._count - len(self._tasks))

    def submit(self, task):
        self._tasks.append(task)
        self.most = max(self.most, len(self._tasks))

    def wait(self, timeout_s):
        task = self._tasks.popleft()
        number = self.tries[task.name] = self.tries.get(task.name, 0) + 1
        kind, result = self._dies(task.name, number) or self._servant.answer(task)
        return [Answer(task.name, kind, result)]

    def close(self):
        self.closed += 1


@pytest.fixture(autouse=True)
def one_choice(monkeypatch):
    monkeypatch.setattr(device, "choose", CHOSEN)


@pytest.fixture
def cohort(model, phantoms, tmp_path, monkeypatch):
    """cohort(count=3, ..., dies=..., options=()) -> exit code; `cohort.actors`, `cohort.out`, `cohort.rows()`."""

    class Cohort:
        out = tmp_path / "výsledky sem"
        model = None
        actors = None

        def __call__(self, *options, dies=lambda name, number: None, count=2):
            def make(_options, setting, volumes, say):
                self.actors = Actors(setting, count, dies)
                return self.actors

            self.actors = None
            monkeypatch.setattr(segment, "_actors", make)
            return cli.main(["cohort", "segment", str(self.model or model), str(self.list), "-o", str(self.out), "--device", "cpu", *options])

        def rows(self):
            manifest = Manifest(self.out)
            try:
                return {row.name: row for row in manifest.rows()}
            finally:
                manifest.close()

        def tries(self):
            manifest = Manifest(self.out)
            try:
                return [(name, outcome) for name, _, _, outcome in manifest.tries()]
            finally:
                manifest.close()

    made = Cohort()
    made.list = phantoms(4, damaged=1)
    return made


def test_every_volume_once_and_a_rerun_does_nothing(cohort, capsys):
    assert cohort() == InputError.exit_code  # one is damaged
    rows = cohort.rows()
    assert {name: row.state for name, row in rows.items()} == {**{f"0{n}": "done" for n in range(4)}, "damaged-0": "quarantined"}
    assert rows["damaged-0"].error.startswith("damaged-0.nrrd cannot be read")
    assert sorted(path.name for path in (cohort.out / "segmentations").iterdir()) == [f"0{n}.seg.nrrd" for n in range(4)]
    assert cohort.actors.most == 2 and cohort.actors.closed == 1
    out, err = capsys.readouterr()
    assert out.strip() == str(cohort.out / "index.html") and "4 done, 1 quarantined" in err
    assert "00" not in err.replace(str(cohort.out), "")  # no name of a series
    assert cohort() == InputError.exit_code
    assert cohort.actors is None  # nobody was started


def test_a_rerun_does_what_is_new_missing_or_damaged(cohort, phantoms):
    cohort()
    results = cohort.out / "segmentations"
    (results / "01.seg.nrrd").unlink()
    (results / "02.seg.nrrd").write_bytes((results / "02.seg.nrrd").read_bytes()[:-1] + b"!")
    phantoms(5, damaged=1)
    cohort()
    assert set(cohort.actors.tries) == {"01", "02", "04"}
    assert all(sha256_of(results / row.output) == row.sha256 for row in cohort.rows().values() if row.state == "done")
    cohort("--format", "nii.gz")
    assert set(cohort.actors.tries) == {f"0{n}" for n in range(5)}


def test_who_dies_is_tried_elsewhere_and_failed_in_the_end(cohort):
    assert cohort(dies=lambda name, number: ("died", GONE) if name == "02" or (name == "01" and number == 1) else None) == WorkerError.exit_code
    assert cohort.actors.tries == {"00": 1, "01": 2, "02": 3, "03": 1, "damaged-0": 1}
    rows = cohort.rows()
    assert (rows["01"].state, rows["01"].attempts) == ("done", 2)
    assert (rows["02"].state, rows["02"].attempts, rows["02"].error) == ("failed", 3, "The process that segmented it was killed. Use fewer actors.")
    cohort()  # which tries again what died, and nothing else
    assert cohort.actors.tries == {"02": 1}
    assert cohort.rows()["02"].state == "done"
    assert [outcome for name, outcome in cohort.tries() if name == "02"] == ["died"] * 3 + ["done"]


def test_half_files_of_who_was_killed_go(cohort):
    half = [cohort.out / "segmentations" / ".0123abcd.seg.nrrd", cohort.out / "pictures" / ".00.svg.4711.part"]

    def dies(name, number):
        if name == "01":
            for path in half:
                path.write_bytes(b"half")

    assert cohort(dies=dies) == InputError.exit_code  # one is damaged
    assert not [path for path in half if path.exists()]
    for path in half:
        path.write_bytes(b"half")
    kept = cohort.out / "segmentations" / "notes.txt"
    kept.write_text("somebody's")
    assert cohort() == InputError.exit_code
    assert kept.exists() and not [path for path in half if path.exists()]


def test_a_full_disk_ends_the_run_with_its_sentence_and_costs_no_volume(cohort, capsys):
    full = error_json(OutputError("Could not write in there: No space left on device.", "Free space."))
    assert cohort(dies=lambda name, number: ("stop", full) if name == "01" else None) == OutputError.exit_code
    assert "No space left on device" in capsys.readouterr().err
    assert cohort.actors.closed == 1
    assert cohort.rows()["01"].state == "waiting" and "running" not in {row.state for row in cohort.rows().values()}
    cohort()
    assert "00" not in cohort.actors.tries and cohort.rows()["01"].state == "done"


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_who_asks_to_stop_finds_what_was_at_work_waiting(cohort, number, code):
    if not hasattr(signal, number):
        pytest.skip("no such signal here")
    before = signal.signal(
        getattr(signal, number), signal.default_int_handler if number == "SIGINT" else signal.SIG_DFL
    )  # a background job ignores it

    def dies(name, tried):
        if name == "01":
            signal.raise_signal(getattr(signal, number))
        return

    try:
        assert cohort(dies=dies) == code
    finally:
        signal.signal(getattr(signal, number), before)
    states = {name: row.state for name, row in cohort.rows().items()}
    assert states["00"] == states["01"] == "done" and states["03"] == "waiting" and "running" not in states.values()
    assert cohort() == InputError.exit_code
    assert not {"00", "01"} & set(cohort.actors.tries)
    assert [outcome for name, outcome in cohort.tries() if name == "03"][-1] == "done"


def test_results_of_another_model_are_refused_or_made_anew(cohort, tmp_path, capsys):
    cohort()
    cohort.model = save_model(tmp_path / "other.pt", seed=1)
    assert cohort() == InputError.exit_code
    assert "4 of the results in" in (said := capsys.readouterr().err) and "--again" in said
    assert cohort.actors is None
    cohort("--again")
    assert set(cohort.actors.tries) == {"00", "01", "02", "03", "damaged-0"}
    assert len({row.model for row in cohort.rows().values() if row.state == "done"}) == 1


def test_a_folder_of_another_run_or_program_is_refused(cohort, capsys, tmp_path):
    cohort()
    lock = Lock(cohort.out, HOST_LOCK)
    assert cohort() == InputError.exit_code
    lock.release()
    assert "Another run is at work in" in capsys.readouterr().err
    cohort.out = tmp_path
    assert cohort() == InputError.exit_code
    assert "is not empty and holds no manifest of a cohort" in capsys.readouterr().err


def test_what_cannot_be_used_is_said_before_anybody_is_started(cohort, capsys, tmp_path):
    (tmp_path / "no model.pt").write_bytes(b"no")
    cohort.model = tmp_path / "no model.pt"
    assert cohort() == InputError.exit_code
    assert "is damaged or no model" in capsys.readouterr().err
    assert not Path(cohort.out).exists()
    cohort.model = None
    assert cohort("--attempts", "0") == InputError.exit_code
    assert "--attempts 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (MemoryError(), "died"),
        (RuntimeError("CUDA error: an illegal memory access"), "died"),
        (TooLargeError("a needs 9 GB."), "died"),
        (OutputError("Full."), "stop"),
        (InputError("Bad."), "refused"),
    ],
)
def test_what_may_be_tried_again(model, monkeypatch, raised, kind):
    def segment_one(*_, **__):
        raise raised

    monkeypatch.setattr(Segmenter, "segment", segment_one)
    servant = Servant(Setting(str(model), sha256_of(model), "cpu", "seg"))
    assert servant.answer(Task("a", ("a.nrrd",), "a.seg.nrrd", "a.svg"))[0] == kind


def test_another_model_or_engine_elsewhere_is_refused(model):
    with pytest.raises(WorkerError, match="is another file on"):
        Servant(Setting(str(model), "0" * 64, "cpu", "seg"))
    with pytest.raises(WorkerError, match=r"of the engine, this computer 0\.0\.1"):
        Servant(Setting(str(model), sha256_of(model), "cpu", "seg", engine="0.0.1"))
