"""DICOM on the command line: series in, SEG and RTSTRUCT out, SEG back in; nothing of the patient stays in a job or on the screen."""

import json
import subprocess
import sys

import numpy as np
import pytest

import dicoms
from phantoms import two_organs
from sparseseg import cli
from sparseseg.contract.classes import ClassTable
from sparseseg.io import dicomseg, files

QUICK = ["--steps", "6", "--device", "cpu"]


def sparseseg(*arguments):
    return subprocess.run([sys.executable, "-m", "sparseseg", *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=300, check=False)


def run(*arguments):
    """In this process: quicker than `sparseseg`."""
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def phantom():
    return two_organs()


@pytest.fixture
def inputs(tmp_path, phantom):
    """A series beside other objects, and strokes, in a folder with a space and accents."""
    folder = tmp_path / "Žluť dir"
    written = dicoms.write_series(folder / "série", phantom.image.astype(np.int16), phantom.geometry)
    for n, other in enumerate(dicoms.make_companions(dicoms.pydicom.dcmread(written[0]))):
        dicoms.save(other, folder / "série" / f"other{n}.dcm")
    files.write_annotation(folder / "strokes.seg.nrrd", phantom.annotation, phantom.geometry, phantom.classes)
    files.write_segmentation(folder / "truth.seg.nrrd", phantom.truth, phantom.geometry, phantom.classes)
    return folder


def labels_of(path, geometry):
    return np.maximum(dicomseg.read_seg(path, geometry).annotation, 1) - 1


@pytest.mark.slow
def test_segment_writes_a_seg_and_leaves_nothing_of_the_patient(inputs, phantom):
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}
    extra = ["--job", inputs / "job", "--report", inputs / "r.html", "--save-model", inputs / "m.pt"]
    done = sparseseg("segment", inputs / "série", inputs / "strokes.seg.nrrd", "-o", inputs / "dense.dcm", *QUICK, *extra)
    assert done.returncode == 0, done.stderr
    assert "No terminology was chosen for bright, dark" in done.stderr
    dense = np.load(inputs / "job" / "dense.npy")
    assert (labels_of(inputs / "dense.dcm", phantom.geometry) == dense).all()
    assert dicoms.dciodvfy(inputs / "dense.dcm") == []
    assert {path: path.read_bytes() for path in before} == before

    identity = [text.encode(code) for text in (dicoms.NAME, *dicoms.NAME.split("^"), dicoms.ID) for code in ("utf-8", "latin-1", "utf-16-le")]
    identity += [json.dumps(text).strip('"').encode() for text in (dicoms.NAME, dicoms.ID)]
    left = [path for path in inputs.rglob("*") if path.is_file() and path not in before and path.name != "dense.dcm"]
    assert len(left) >= 10
    for path in left:
        content = path.read_bytes()
        assert not [word for word in identity if word in content], path.name
    assert not [word for word in identity if word in (done.stdout + done.stderr).encode()]
    seg = dicoms.pydicom.dcmread(inputs / "dense.dcm")
    assert (str(seg.PatientName), seg.PatientID) == (dicoms.NAME, dicoms.ID)  # the result itself must name the patient


@pytest.mark.slow
def test_a_job_is_exported_as_fractional_seg_and_structure_set(inputs, phantom, capsys):
    assert run("segment", inputs / "série", inputs / "strokes.seg.nrrd", "-o", inputs / "a.seg.nrrd", *QUICK, "--job", inputs / "job") == 0
    job = inputs / "job"
    assert run("export", job, inputs / "série", "-o", inputs / "f.dcm", "--dicom", "fractional") == 0
    assert (labels_of(inputs / "f.dcm", phantom.geometry) == np.load(job / "dense.npy")).all()
    seg = dicoms.pydicom.dcmread(inputs / "f.dcm")
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    values = np.unique(seg.pixel_array)
    assert values[0] == 0 and values[1] >= 128 and len(values) > 2
    assert run("export", job, inputs / "série", "-o", inputs / "r.dcm", "--dicom", "rtstruct") == 0
    assert dicoms.dciodvfy(inputs / "r.dcm") == []


@pytest.mark.slow
def test_a_job_is_not_exported_on_another_series(inputs, phantom, capsys):
    assert run("segment", inputs / "série", inputs / "strokes.seg.nrrd", "-o", inputs / "a.seg.nrrd", *QUICK, "--job", inputs / "job") == 0
    dicoms.write_series(inputs / "other", phantom.image.astype(np.int16), phantom.geometry, series="other")
    assert run("export", inputs / "job", inputs / "other", "-o", inputs / "no.dcm") == 2
    assert "made on another series" in capsys.readouterr().err
    assert not (inputs / "no.dcm").exists()


def test_export_and_import_give_every_voxel_back(inputs, phantom, capsys):
    assert run("export", inputs / "truth.seg.nrrd", inputs / "série", "-o", inputs / "t.dcm") == 0
    assert run("import", inputs / "t.dcm", inputs / "série", "-o", inputs / "back.seg.nrrd") == 0
    back = files.read_annotation(inputs / "back.seg.nrrd", phantom.geometry)
    assert (np.maximum(back.annotation, 1) - 1 == phantom.truth).all()
    assert back.classes.names == phantom.classes.names
    files.write_segmentation(inputs / "map.nii.gz", phantom.truth, phantom.geometry, phantom.classes)
    assert run("export", inputs / "map.nii.gz", inputs / "série", "-o", inputs / "m.dcm") == 0
    assert run("export", inputs / "t.dcm", inputs / "série", "-o", inputs / "t2.dcm") == 0
    for name in ("m.dcm", "t2.dcm"):
        assert (labels_of(inputs / name, phantom.geometry) == phantom.truth).all()


@pytest.mark.slow
def test_a_seg_is_an_annotation_to_train_on(inputs, phantom):
    classes = ClassTable.numbered(3, ["bright", "dark", "background"])
    strokes = np.choose(phantom.annotation, [0, 3, 1, 2]).astype(np.uint8)
    series = files.read_volume(inputs / "série").series
    dicomseg.write_seg(inputs / "strokes.dcm", strokes, series, classes)
    assert run("segment", inputs / "série", inputs / "strokes.dcm", "-o", inputs / "d.dcm", *QUICK) == 0
    dense = labels_of(inputs / "d.dcm", phantom.geometry)
    assert (dense[phantom.annotation > 1] == phantom.annotation[phantom.annotation > 1] - 1).all()
    assert dicomseg.read_seg(inputs / "d.dcm", phantom.geometry).classes.names == ["bright", "dark"]


def test_a_list_of_files_is_a_series(inputs, phantom):
    listed = inputs / "series.txt"
    listed.write_text("\n".join(str(p) for p in sorted((inputs / "série").glob("0*.dcm"))), encoding="utf-8")
    assert run("export", inputs / "truth.seg.nrrd", listed, "-o", inputs / "t.dcm") == 0
    listed.write_text(str(inputs / "none.dcm"), encoding="utf-8")
    assert run("export", inputs / "truth.seg.nrrd", listed, "-o", inputs / "n.dcm") == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["segment", "image.nrrd", "strokes.seg.nrrd", "-o", "x.dcm"], "is no DICOM series, so a result on it cannot be DICOM"),
        (["export", "truth.seg.nrrd", "série", "-o", "x.nrrd"], "is no name of a DICOM file"),
        (["export", "truth.seg.nrrd", "série", "-o", "x.dcm", "--dicom", "fractional"], "needs the uncertainty"),
        (["export", "empty.nii.gz", "série", "-o", "x.dcm"], "is empty"),
        (["export", "overlap.dcm", "série", "-o", "x.dcm"], "are in both"),
        (["export", "truth.seg.nrrd", "none", "-o", "x.dcm"], "There is no folder"),
        (["import", "strokes.seg.nrrd", "none", "-o", "x.seg.nrrd"], "There is no"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(inputs, phantom, capsys, arguments, sentence):
    files.write_volume(inputs / "image.nrrd", phantom.image, phantom.geometry)
    files.write_segmentation(inputs / "empty.nii.gz", np.zeros_like(phantom.truth), phantom.geometry, phantom.classes)
    if "overlap.dcm" in arguments:
        write_overlapping(inputs / "overlap.dcm", phantom, files.read_volume(inputs / "série").series)
    names = {path.name for path in inputs.iterdir()}
    assert run(*[inputs / a if (inputs / a).exists() or "." in a or a == "none" else a for a in arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert {path.name for path in inputs.iterdir()} == names


def write_overlapping(path, phantom, series):
    import highdicom

    masks = np.stack([phantom.truth == 1, phantom.truth > 0], axis=-1).astype(np.uint8)
    tissue = highdicom.sr.CodedConcept("85756007", "SCT", "Tissue")
    segments = [highdicom.seg.SegmentDescription(n, f"s{n}", tissue, tissue, "MANUAL") for n in (1, 2)]
    headers = list(dicomseg.source_headers(series)[0].headers)
    uid = highdicom.UID
    highdicom.seg.Segmentation(headers, masks, "BINARY", segments, uid(), 9, uid(), 1, "m", "n", "v", "1").save_as(path)


def test_no_slice_of_the_series_is_ever_overwritten(inputs, capsys):
    slice_file = inputs / "série" / "0001.dcm"
    before = slice_file.read_bytes()
    for command in (
        ["export", inputs / "truth.seg.nrrd", inputs / "série", "-o", slice_file],
        ["segment", inputs / "série", inputs / "strokes.seg.nrrd", "-o", slice_file],
    ):
        assert run(*command) == 2
        assert "would be overwritten" in capsys.readouterr().err
    assert slice_file.read_bytes() == before


def test_without_the_packages_the_need_is_said_before_training(inputs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert run("segment", inputs / "série", inputs / "strokes.seg.nrrd", "-o", inputs / "x.dcm", "--time-budget", "300") == 2
    assert "pip install 'sparseseg[dicom]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert run("segment", inputs / "série", inputs / "strokes.seg.nrrd", "-o", inputs / "x.seg.nrrd") == 2
    assert "needs the package pydicom" in capsys.readouterr().err
