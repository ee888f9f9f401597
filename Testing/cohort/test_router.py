"""A task of the router mercure: series in, segmentations and result.json out, as its documentation says (https://mercure-imaging.org/docs/modules.html)."""

import json
import shutil

import numpy as np
import pytest

import dicoms
from phantoms import two_organs
from sparseseg import cli, io
from sparseseg.cohort import router, segmenting
from sparseseg.contract.errors import InputError

pytest.importorskip("highdicom", reason="highdicom is not installed (pip install -e '.[dicom]')")
SHAPE = (12, 20, 18)


class Task:
    """The folders that the router gives to a container."""

    def __init__(self, place, models):
        self.source, self.target, self.models = place / "in", place / "out", models
        for folder in (self.source, self.target):
            folder.mkdir()
        self.settings = {"device": "cpu"}

    def add(self, series, seed=0, modality="CT", spoil=None):
        """A series of a phantom under the router's names, with the tags that it writes beside each; its UID."""
        phantom = two_organs(SHAPE, seed=seed)
        slices = dicoms.make_slices(phantom.image.astype(np.int16), phantom.geometry, series=series, modality=modality)
        for slice_ in spoil(slices) if spoil else slices:
            path = self.source / f"{slice_.SeriesInstanceUID}#{slice_.SOPInstanceUID}.dcm"
            dicoms.save(slice_, path)
            path.with_suffix(".tags").write_text("{}", encoding="utf-8")
        return str(slices[0].SeriesInstanceUID)

    def write(self, process=None):
        task = {"id": "1", "info": {"uid_type": "study"}, "process": process or {"module_name": "sparseseg", "settings": self.settings}}
        (self.source / "task.json").write_text(json.dumps(task), encoding="utf-8")

    def run(self, process=None):
        self.write(process)
        return cli.main(["cohort", "mercure", "--models", str(self.models)])

    def result(self):
        """result.json, and its series by UID."""
        result = json.loads((self.target / "result.json").read_text(encoding="utf-8"))
        return result, {each["series"]: each for each in result["series"]}

    def files(self):
        return sorted(path.name for path in self.target.iterdir())


@pytest.fixture
def task(tmp_path, model, monkeypatch):
    models = tmp_path / "models"
    models.mkdir()
    shutil.copy(model, models / "liver.pt")
    task = Task(tmp_path, models)
    monkeypatch.setenv("MERCURE_IN_DIR", str(task.source))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(task.target))
    return task


def three_slices_short(slices):
    return [*slices[:5], *slices[8:]]


def without_pixels(slices):
    """As a report: a series with neither rows nor pixels."""
    report = slices[0]
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"
    for name in ("Rows", "Columns", "PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ImagePositionPatient"):
        del report[name]
    return [report]


@pytest.mark.slow
def test_a_study_comes_back_as_segmentations_and_a_true_report(task, capsys):
    good, other = task.add("thin"), task.add("thick", seed=1)
    bad, report = task.add("gap", spoil=three_slices_short), task.add("report", spoil=without_pixels)
    assert task.run() == 0
    result, series = task.result()
    assert result["model"]["file"] == "liver.pt" and len(result["model"]["sha256"]) == 64
    assert [series[uid]["state"] for uid in (good, other, bad, report)] == ["segmented", "segmented", "refused", "left out"]
    for uid in (good, other):
        file = task.target / series[uid]["file"]
        made = io.read_instance(file)
        assert file.name == f"{made.series}#{made.uid}.dcm" and made.modality == "SEG"
        source = io.find_series(task.source, uid)
        labels = io.read_dense(file, source.geometry, source).labels
        assert list(series[uid]["voxels"].values()) == np.bincount(labels.ravel(), minlength=3)[1:].tolist()
    assert task.files() == sorted(["result.json", series[good]["file"], series[other]["file"]])
    assert "missing" in series[bad]["reason"]
    assert series[report]["reason"] == "It holds no images."
    notification = result["__mercure_notification"]["text"]
    assert notification.startswith("1 of 4 series were not segmented") and bad in notification
    said = capsys.readouterr().err + json.dumps(result)
    assert dicoms.NAME.split("^")[0] not in said and dicoms.ID not in said


@pytest.mark.slow
def test_settings_choose_segments_kind_and_modality(task):
    ct, mr = task.add("ct"), task.add("mr", modality="MR")
    names = two_organs(SHAPE).classes.names
    task.settings |= {"segments": [names[1]], "output": "labelmap", "modalities": ["CT", "PT"], "model": "liver.pt"}
    assert task.run() == 0
    result, series = task.result()
    assert series[mr] == {"series": mr, "state": "left out", "reason": "Its modality is MR, and CT, PT is asked for."}
    assert list(series[ct]["voxels"]) == [names[1]]
    assert "__mercure_notification" not in result
    source = io.find_series(task.source, ct)
    dense = io.read_dense(task.target / series[ct]["file"], source.geometry, source)
    assert dense.classes.names == [names[1]]
    assert np.count_nonzero(dense.labels) == series[ct]["voxels"][names[1]]


@pytest.mark.slow
def test_a_result_below_the_least_estimate_is_not_sent_on(task, monkeypatch):
    uid = task.add("thin")
    ids = two_organs(SHAPE).classes.ids
    monkeypatch.setattr(segmenting, "estimates", lambda *_: {ids[0]: 0.91, ids[1]: 0.42})
    task.settings["least_estimate"] = 0.5
    assert task.run() == 2
    result, series = task.result()
    assert series[uid]["state"] == "refused" and "is 0.42, below the 0.50" in series[uid]["reason"]
    assert result["error"].startswith("No series of the task could be segmented.")
    assert task.files() == ["result.json"]


@pytest.mark.slow
def test_a_damaged_file_costs_its_series_alone(task):
    good = task.add("thin")
    bad = task.add("thick")
    next(path for path in sorted(task.source.glob(f"{bad}#*.dcm"))).write_bytes(b"\0" * 300)
    assert task.run() == 0
    _, series = task.result()
    assert {uid: each["state"] for uid, each in series.items()} == {good: "segmented", bad: "refused"}


@pytest.mark.slow
def test_no_series_that_can_be_done_is_a_failure_of_the_task(task, capsys):
    bad = task.add("gap", spoil=three_slices_short)
    assert task.run() == 2
    result, series = task.result()
    assert series[bad]["state"] == "refused" and "missing" in result["error"]
    assert "No series of the task could be segmented" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"colour": "red"}, "There is no setting 'colour'"),
        ({"segments": "liver"}, "Write a list of texts"),
        ({"least_estimate": "0.5"}, "Write a number"),
        ({"least_estimate": True}, "Write a number"),
        ({"least_estimate": 50}, "It is a Dice, from 0 to 1"),
        ({"output": "nifti"}, "It is one of seg, labelmap"),
        ({"segments": ["spleen"]}, "The model has no segment called 'spleen'"),
        ({"model": "other.pt"}, "holds no model 'other.pt'"),
        ({"model": "../model.pt"}, "holds no model '../model.pt'"),
        ([], "are no table"),
    ],
)
def test_settings_that_cannot_be_followed_are_said(task, settings, reason):
    task.add("thin")
    task.settings = settings if isinstance(settings, list) else {**task.settings, **settings}
    assert task.run({"module_name": "x", "settings": task.settings}) == 2
    assert reason in task.result()[0]["error"]


def test_a_task_without_settings_or_of_no_known_form_has_none(task):
    for given in ({}, {"process": {}}, {"process": None}, [], {"process": [{"settings": {"output": "x"}}]}):
        assert router.TaskSettings.from_task(given) == router.TaskSettings()


def test_several_models_must_be_chosen_from(task):
    shutil.copy(task.models / "liver.pt", task.models / "spleen.pt")
    task.add("thin")
    assert task.run() == 2
    assert "holds 2 models. Set `model` to one of liver.pt, spleen.pt." in task.result()[0]["error"]


def test_a_task_without_files_or_without_task_is_said(task):
    assert task.run() == 2
    assert "has no DICOM file" in task.result()[0]["error"]
    (task.source / "task.json").write_text("{", encoding="utf-8")
    assert cli.main(["cohort", "mercure", "--models", str(task.models)]) == 2
    assert "task.json cannot be read" in task.result()[0]["error"]


def test_it_says_what_it_is_for_where_no_router_started_it(monkeypatch, capsys):
    monkeypatch.delenv("MERCURE_IN_DIR", raising=False)
    assert cli.main(["cohort", "mercure"]) == InputError.exit_code
    assert "MERCURE_IN_DIR names no folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stop_leaves_a_report_of_what_was_done(task, monkeypatch):
    task.add("a")
    task.add("b")
    done = router._segmented

    def then_stop(series, files, target, segmenter, settings, stop):
        outcome = done(series, files, target, segmenter, settings, stop)
        stop.ask(15)
        return outcome

    monkeypatch.setattr(router, "_segmented", then_stop)
    assert task.run() == 143
    assert len(task.result()[1]) == 1
