"""From an archive and back: series are found, fetched, segmented and stored, each once; what was not stored is, with the next run."""

import sqlite3

import numpy as np
import pytest

import archives
import dicoms
from phantoms import two_organs
from sparseseg import cli, io
from sparseseg.cohort import web
from sparseseg.cohort.actors import Servant, Setting, Task
from sparseseg.cohort.segmenting import sha256_of

pytest.importorskip("highdicom", reason="highdicom is not installed (pip install -e '.[dicom]')")


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """With two series."""
    monkeypatch.setattr(web, "PAUSES_S", (0.0, 0.0, 0.0))
    for name in (web.HOST, web.TOKEN, web.LOGIN, "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with archives.running() as archive:
        for n in range(2):
            phantom = two_organs((12, 20, 18), seed=n)
            archive.keep_all(dicoms.write_series(tmp_path / f"series {n}", phantom.image.astype(np.int16), phantom.geometry, series=f"series {n}"))
        yield archive


class Cohort:
    def __init__(self, folder, archive, model):
        self.folder, self.archive, self.model = folder, archive, model
        self.list, self.output = folder / "list.csv", folder / "out"

    def find(self, query="Modality=CT"):
        return cli.main(["cohort", "list", "--dicomweb", self.archive.base, "--query", query, "-o", str(self.list)])

    def segment(self, *more, to=None):
        where = ["--format", "dcm", "--store", to or self.archive.base]
        return cli.main(["cohort", "segment", str(self.model), str(self.list), "-o", str(self.output), "--local", "--device", "cpu", *where, *more])

    def column(self, name):
        database = sqlite3.connect(self.output / "manifest.sqlite")
        try:
            return [value for (value,) in database.execute(f"SELECT {name} FROM series ORDER BY name")]
        finally:
            database.close()

    def results(self):
        return sorted((self.output / "segmentations").glob("*.dcm"))

    def posts(self):
        return [path for method, path, _ in self.archive.requests if method == "POST"]


@pytest.fixture
def cohort(tmp_path, archive, model):
    return Cohort(tmp_path, archive, model)


@pytest.mark.slow
def test_series_are_found_segmented_and_stored_each_once(cohort, archive, monkeypatch, capsys):
    secret = "s3cret-Token"
    archive.login = f"Bearer {secret}"
    monkeypatch.setenv(web.HOST, "localhost")
    monkeypatch.setenv(web.TOKEN, secret)
    assert cohort.find() == 0
    assert cohort.segment("--actors", "1") == 0
    assert cohort.column("state") == ["done", "done"]
    assert cohort.column("stored") == [archive.base] * 2
    made = [archive.objects[io.read_instance(path).uid] for path in cohort.results()]
    assert made == [path.read_bytes() for path in cohort.results()]
    studies = {header.StudyInstanceUID for header in archive.headers.values() if header.Modality == "SEG"}
    assert studies == {header.StudyInstanceUID for header in archive.headers.values() if header.Modality == "CT"}
    assert len(cohort.posts()) == 2
    assert cohort.segment("--actors", "1") == 0
    assert len(cohort.posts()) == 2
    told = capsys.readouterr()
    written = [path.read_bytes() for path in cohort.folder.rglob("*") if path.is_file()]
    for word in (secret, dicoms.NAME.split("^")[0]):
        assert word not in told.out + told.err
    assert not any(secret.encode() in content for content in written)


@pytest.mark.slow
def test_what_was_not_stored_is_kept_and_sent_with_the_next_run(cohort, archive, capsys):
    assert cohort.find() == 0
    with archives.running() as second:
        second.faults = ["409 A700"]
        assert cohort.segment("--actors", "1", to=second.base) == 2
        assert len(cohort.results()) == 2
        assert sorted(map(bool, cohort.column("stored"))) == [False, True]
        assert "does not store" in capsys.readouterr().err
        assert cohort.segment("--actors", "1", to=second.base) == 0
        assert cohort.column("stored") == [second.base] * 2
        assert len(second.objects) == 2
        assert "1 results are in the archive" in capsys.readouterr().err


def test_storing_is_refused_where_results_are_no_dicom(cohort, capsys):
    cohort.list.write_text("image\na.nrrd\n", encoding="utf-8")
    assert cohort.segment("--format", "nrrd") == 2
    assert "An archive takes DICOM files only" in capsys.readouterr().err
    assert cohort.segment(to="http://archive.example.org/dicom-web") == 2
    assert "over http" in capsys.readouterr().err
    assert not cohort.output.exists()


def test_a_list_holds_names_and_addresses_alone(cohort, archive):
    assert cohort.find() == 0
    lines = cohort.list.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "name,image"
    assert all(f"{archive.base}/studies/" in line and line.startswith(line.rpartition("/")[2] + ",") for line in lines[1:])
    assert cohort.find("Modality=PT") == 2


# ---------------------------------------------------------------- what an archive's failure is for a cohort


@pytest.fixture
def servant(model):
    return Servant(Setting(str(model), sha256_of(model), "cpu", "seg", False, 1))


def answer(servant, archive, folder):
    address = archive.address_of(next(iter(archive.objects)))
    kind, result = servant.answer(Task("a", (address,), str(folder / "a.dcm"), str(folder / "a.svg")))
    return kind, result.get("sentence", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind", "reason"), [("500", "died", "in 4 tries"), ("403", "refused", "does not allow this"), ("one missing", "died", "left out 1")]
)
def test_a_failure_that_passes_is_tried_again_later_and_another_is_not(servant, archive, tmp_path, fault, kind, reason):
    archive.faults = [fault] * 4
    said, sentence = answer(servant, archive, tmp_path)
    assert said == kind and reason in sentence
    assert not (tmp_path / "a.dcm").exists()
    archive.faults = []
    assert answer(servant, archive, tmp_path)[0] == "done"


def test_a_login_that_is_not_taken_ends_the_run(servant, archive, tmp_path, monkeypatch):
    archive.login = "Bearer another"
    said, sentence = answer(servant, archive, tmp_path)
    assert said == "stop" and "wants a login" in sentence
