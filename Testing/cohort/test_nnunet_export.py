"""A data set for nnU-Net: what is written, and that it comes back the same."""

import json

import numpy as np
import pytest
from cohorts import patients, run, write_list

from sparseseg import io
from sparseseg.cohort.patient import Meaning
from sparseseg.cohort.patients import read_list
from sparseseg.cohort.reading import read_image, read_strokes
from sparseseg.network import intensity


@pytest.fixture
def exported(tmp_path):
    phantoms = patients(2)
    assert run("cohort", "export", write_list(tmp_path / "list", phantoms), "--nnunet", tmp_path / "Dataset007_Organs") == 0
    return phantoms, tmp_path / "Dataset007_Organs"


def test_the_files(exported):
    phantoms, folder = exported
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert about["labels"] == {"background": 0, "bright": 1, "dark": 2, "ignore": 3}
    assert (about["channel_names"], about["numTraining"], about["file_ending"]) == ({"0": "channel 1"}, 2, ".nii.gz")
    assert sorted(path.name for path in folder.rglob("*.nii.gz")) == ["p0.nii.gz", "p0_0000.nii.gz", "p1.nii.gz", "p1_0000.nii.gz"]
    labels = io.read_labels(folder / "labelsTr" / "p0.nii.gz", phantoms[0].geometry)
    assert np.array_equal(labels, np.array([3, 0, 1, 2], np.uint8)[phantoms[0].annotation])


def test_it_comes_back_the_same(exported):
    phantoms, folder = exported
    for patient, phantom in zip(read_list(folder, annotated=True), phantoms, strict=True):
        image, _ = read_image(patient)
        strokes = read_strokes(patient, image, "none", Meaning())
        assert np.array_equal(image.array, phantom.image) and not image.geometry.difference_from(phantom.geometry)
        assert np.array_equal(strokes.annotation, phantom.annotation)
        assert strokes.classes.names == phantom.classes.names and strokes.is_named


def test_it_can_be_exported_again(exported, tmp_path):
    _, folder = exported
    assert run("cohort", "export", folder, "--nnunet", tmp_path / "again") == 0
    for name in ("dataset.json", "labelsTr/p1.nii.gz"):
        first, second = ((place / name) for place in (folder, tmp_path / "again"))
        if name.endswith(".json"):
            assert first.read_text(encoding="utf-8") == second.read_text(encoding="utf-8")
        else:
            geometry = io.read_volume(first).geometry
            assert np.array_equal(io.read_labels(first, geometry), io.read_labels(second, geometry))


def test_a_value_that_the_data_set_does_not_know(exported, tmp_path, capsys):
    _, folder = exported
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    del about["labels"]["dark"]
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    assert run("cohort", "export", folder, "--nnunet", tmp_path / "again") == 2
    assert "case p0: its annotation has the value 2, which dataset.json does not know" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_an_existing_folder_is_left_alone(exported, tmp_path, capsys):
    _, folder = exported
    assert run("cohort", "export", folder, "--nnunet", tmp_path) == 2
    assert "is there already" in capsys.readouterr().err


def test_a_name_that_means_something_else_there(tmp_path, capsys):
    phantom = patients(1)[0]
    source = write_list(tmp_path / "list", [phantom])
    io.write_annotation(tmp_path / "list" / "p0-strokes.seg.nrrd", phantom.annotation, phantom.geometry, phantom.classes.with_names(["ignore", "b"]))
    assert run("cohort", "export", source, "--nnunet", tmp_path / "out") == 2
    assert "called ignore" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_looks_like_ct():
    air_and_tissue = np.concatenate([np.full(500, -1000), np.full(500, 40)]).astype(np.int16).reshape(10, 10, 10)
    assert intensity.looks_like_ct(air_and_tissue) and not intensity.looks_like_ct(air_and_tissue.clip(0))
