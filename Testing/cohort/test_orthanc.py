"""A real DICOMweb server (Orthanc with its plugin): a series is found, fetched, and stored again, as with any client."""

import numpy as np
import pytest

import dicoms
from orthanc import DICOMWEB, Orthanc, running
from sparseseg import io
from sparseseg.cohort import dicomweb
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry

pytest.importorskip("highdicom", reason="highdicom is not installed (pip install -e '.[dicom]')")
pytestmark = pytest.mark.slow
SHAPE = (5, 24, 32)  # (K, J, I)
GEOMETRY = Geometry.from_axes(SHAPE, (0.75, 0.5, 2.5), (-7.25, 3.5, 100.125), dicoms.rotation(10, 20, 30).ravel())


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    program = dicoms.tool("Orthanc")
    if not DICOMWEB.exists():
        pytest.skip("Orthanc's plugin for DICOMweb is not installed (orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("archive")
    orthanc = Orthanc(folder, DICOMWEB)
    with running([program, orthanc.configuration], folder / "log.txt", orthanc.answers):
        yield f"http://localhost:{orthanc.http}/dicom-web"


def test_a_series_goes_in_is_found_comes_back_and_its_result_goes_in(archive, tmp_path):
    stored = np.random.default_rng(0).integers(-1000, 1000, SHAPE, np.int16)
    paths = dicoms.write_series(tmp_path / "series", stored, GEOMETRY, transfer="jpeg-ls")
    for path in paths:
        dicomweb.store(archive, path)
        dicomweb.store(archive, path)  # as after an answer that was lost
    (found,) = dicomweb.find(archive, "Modality=CT")
    assert [found] == dicomweb.find(archive, "SeriesDescription=thi*")
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 4:9, 5:20] = 1
    result = tmp_path / "result.dcm"
    with dicomweb.at_hand((str(found),)) as (folder,):
        volume = io.read_volume(folder)
        assert np.array_equal(volume.array, io.read_volume(tmp_path / "series").array)
        assert sorted(path.read_bytes() for path in folder.iterdir()) == sorted(path.read_bytes() for path in paths)
        io.write_dicom(result, "seg", io.Dense(labels, ClassTable.numbered(1)), volume.series)
    dicomweb.store(archive, result)
    (seg,) = dicomweb.find(archive, "Modality=SEG")
    assert seg.study == found.study
    with dicomweb.at_hand((str(seg),)) as (folder,):
        (back,) = folder.iterdir()
        assert np.array_equal(io.read_dense(back, volume.geometry, volume.series).labels, labels)


def test_what_is_not_there_is_said(archive):
    with pytest.raises(InputError, match="finds no series"):
        dicomweb.find(archive, "Modality=US")
    with pytest.raises(InputError, match=r"404|sends nothing|finds"), dicomweb.at_hand((f"{archive}/studies/1.2/series/1.3",)):
        pass
