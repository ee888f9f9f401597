"""One model, one volume after the other: the same as `sparseseg predict`, in each format, with its sentence where it cannot be."""

import hashlib
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from untrained import save_model

from phantoms import two_contrasts
from sparseseg import cli, io
from sparseseg.cohort import segmenting
from sparseseg.cohort.patient import Patient
from sparseseg.cohort.segmenting import Segmenter
from sparseseg.contract import memory
from sparseseg.contract.errors import InputError, ModelError, TooLargeError
from sparseseg.contract.geometry import Geometry


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="module")
def segmenter(model):
    return Segmenter(model, "cpu")


@pytest.fixture
def image(tmp_path, phantom):
    io.write_volume(tmp_path / "image.nrrd", phantom.image, phantom.geometry)
    return tmp_path / "image.nrrd"


@pytest.mark.slow
def test_it_says_what_predict_says(segmenter, model, image, tmp_path, phantom):
    assert cli.main(["predict", str(model), str(image), "-o", str(tmp_path / "predicted.seg.nrrd"), "--device", "cpu"]) == 0
    said = segmenter.segment(Patient("a", (str(image),)), tmp_path / "a.seg.nrrd")
    one, other = (io.read_dense(tmp_path / name, phantom.geometry) for name in ("predicted.seg.nrrd", "a.seg.nrrd"))
    assert (one.labels == other.labels).mean() > 0.9  # either may have chosen the other precision
    assert one.classes == other.classes
    assert list(said.voxels.values()) == np.bincount(other.labels.ravel(), minlength=3)[1:].tolist()


def test_what_is_told_of_a_volume_is_true(segmenter, image, tmp_path):
    output = tmp_path / "a.nii.gz"
    said = segmenter.segment(Patient("a", (str(image),)), output, picture_file=tmp_path / "a.svg")
    assert (said.bytes_read, said.bytes_written) == (image.stat().st_size, output.stat().st_size)
    assert said.sha256 == hashlib.sha256(output.read_bytes()).hexdigest()
    assert said.shape_kji == (24, 40, 36) and set(said.seconds) == {"read", "network", "write"}
    assert json.loads(json.dumps(said.to_json()))["voxels"] == said.voxels
    drawn = ET.parse(tmp_path / "a.svg").getroot()
    assert len(drawn.findall(".//{http://www.w3.org/2000/svg}image")) == 2
    again = segmenter.segment(Patient("a", (str(image),)), tmp_path / "again.nii.gz")
    assert again.sha256 == said.sha256


def test_a_model_of_upright_volumes_says_the_same_however_a_volume_is_stored(tmp_path, phantom):
    segmenter = Segmenter(save_model(tmp_path / "upright.pt", is_upright=True), "cpu")
    turned = phantom.image.transpose(2, 0, 1)[::-1]
    matrix = phantom.geometry.matrix[:, [1, 2, 0, 3]]
    matrix[:, 3] += matrix[:, 2] * (turned.shape[0] - 1)
    matrix[:, 2] *= -1
    io.write_volume(tmp_path / "turned.nrrd", turned, grid_of(turned.shape, matrix))
    io.write_volume(tmp_path / "plain.nrrd", phantom.image, phantom.geometry)
    labels = {}
    for name, shape in (("plain", phantom.geometry), ("turned", grid_of(turned.shape, matrix))):
        segmenter.segment(Patient(name, (str(tmp_path / f"{name}.nrrd"),)), tmp_path / f"{name}.seg.nrrd")
        labels[name] = io.read_dense(tmp_path / f"{name}.seg.nrrd", shape).labels
    np.testing.assert_array_equal(labels["turned"], labels["plain"].transpose(2, 0, 1)[::-1])
    assert labels["plain"].any()


def grid_of(shape_kji, matrix):
    return Geometry(tuple(shape_kji), tuple(map(tuple, matrix)))


def test_a_volume_that_cannot_be_used_costs_itself_alone(segmenter, image, tmp_path, monkeypatch):
    contrasts = two_contrasts()
    for n, channel in enumerate(contrasts.image):
        io.write_volume(tmp_path / f"channel {n}.nrrd", channel, contrasts.geometry)
    two = Patient("two", tuple(str(tmp_path / f"channel {n}.nrrd") for n in range(2)))
    with pytest.raises(ModelError, match="trained on 1 channel, the image has 2 channels"):
        segmenter.segment(two, tmp_path / "two.seg.nrrd")
    with pytest.raises(InputError, match="is no DICOM series"):
        segmenter.segment(Patient("a", (str(image),)), tmp_path / "a.dcm")
    with monkeypatch.context() as patched:
        patched.setattr(memory, "free_bytes", lambda: 10_000)
        with pytest.raises(TooLargeError, match="of memory to be read"):
            segmenter.segment(Patient("a", (str(image),)), tmp_path / "a.seg.nrrd")
    assert not list(tmp_path.glob("*.dcm")) and not (tmp_path / "a.seg.nrrd").exists()
    assert segmenter.segment(Patient("a", (str(image),)), tmp_path / "a.seg.nrrd").bytes_written > 0


def test_labels_too_need_memory(segmenter, image, tmp_path, monkeypatch, phantom):
    whole = io.read_volume(image)
    monkeypatch.setattr(segmenting.io, "read_volume", lambda _: whole)
    monkeypatch.setattr(memory, "free_bytes", lambda: 3 * phantom.image.size - 1)
    with pytest.raises(TooLargeError, match=r"a needs .* of memory to be segmented"):
        segmenter.segment(Patient("a", (str(image),)), tmp_path / "a.seg.nrrd")
