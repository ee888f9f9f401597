"""The sample files that other packages bring along: exact against their own reader, or refused with the sentence that docs/files.md has."""

from pathlib import Path

import numpy as np
import pytest

from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import read_annotation, read_volume

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
highdicom = pytest.importorskip("highdicom")
import nrrd  # noqa: E402
import slicerio  # noqa: E402

NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
PYDICOM_DATA = Path(pydicom.__file__).parent / "data"
PYDICOM = PYDICOM_DATA / "test_files"
SLICERIO = Path(slicerio.__file__).parent / "data"
HIGHDICOM = Path(highdicom.__file__).parent
PYNRRD = Path(nrrd.__file__).parent
OTHERS = {".py", ".pyc", ".json", ".md", ".html", ".txt", ".typed"}


def samples(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in OTHERS]


EVERY = [path for folder in (NIBABEL, PYDICOM_DATA, SLICERIO, HIGHDICOM, PYNRRD) for path in samples(folder)]
REFUSED = {
    NIBABEL / "example4d.nii.gz": "four dimensions",
    NIBABEL / "example_nifti2.nii.gz": "four dimensions",
    NIBABEL / "functional.nii": "four dimensions",
    NIBABEL / "resampled_anat_moved.nii": "not a number",
    NIBABEL / "analyze.hdr": "header without voxels",
    NIBABEL / "nifti1.hdr": "header without voxels",
    NIBABEL / "nifti2.hdr": "header without voxels",
    PYDICOM / "badVR.dcm": "radiation dose",
    PYDICOM / "rtdose.dcm": "radiation dose",
    PYDICOM / "CT_small.dcm": "only one slice",
    PYDICOM / "MR_small_bigendian.dcm": "only one slice",
    PYDICOM / "SC_rgb_jpeg.dcm": "values in each voxel",
    PYDICOM_DATA / "charset_files" / "chrFren.dcm": "no usable position",
    PYDICOM_DATA / "palettes" / "pet.dcm": "holds no DICOM image",
    HIGHDICOM / "_icc_profiles" / "sRGB_v4_ICC_preference.icc": "not of a known image format",
    SLICERIO / "SegmentationOverlapping.seg.nrrd": "2 values in each voxel",
}


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name)
def test_each_ends_in_an_image_or_a_sentence(path, capfd, recwarn):
    grid = Geometry.from_axes((4, 5, 6), (1, 1, 1))
    for read in (read_volume, lambda path: read_annotation(path, grid)):
        try:
            read(path)
        except SparseSegError as error:
            assert error.sentence.endswith(".")
            assert error.advice.endswith(".")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize(("path", "sentence"), REFUSED.items(), ids=lambda value: getattr(value, "name", ""))
def test_each_of_these_gets_its_sentence(path, sentence):
    with pytest.raises(SparseSegError, match=sentence):
        read_volume(path)


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "reoriented_anat_moved.nii"])
def test_nifti_as_nibabel_has_it(name):
    image, judge = read_volume(NIBABEL / name), nibabel.load(NIBABEL / name)
    assert np.allclose(image.array, np.asarray(judge.dataobj).T)
    assert np.allclose(image.geometry.ijk_to_ras(), judge.affine, atol=1e-4)


def test_a_series_as_pydicom_has_it():
    folder = PYDICOM / "dicomdirtests" / "98892001" / "CT5N"
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda one: one.ImagePositionPatient[2])
    expected = np.stack([one.pixel_array * float(one.RescaleSlope) + float(one.RescaleIntercept) for one in slices])
    assert np.array_equal(read_volume(folder).array, expected)


@pytest.mark.parametrize("name", ["CTChest4.nrrd", "Segmentation.seg.nrrd"])
def test_nrrd_as_pynrrd_has_it(name):
    image, (array, header) = read_volume(SLICERIO / name), nrrd.read(str(SLICERIO / name))
    assert header["space"] == "left-posterior-superior"
    assert np.array_equal(image.array, array.T)
    assert np.allclose(image.geometry.matrix[:3], np.column_stack([header["space directions"].T, header["space origin"]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["Segmentation.seg.nrrd", "SegmentationOverlapping.seg.nrrd"])
def test_segments_as_slicerio_has_them(name):
    grid = read_volume(SLICERIO / "Segmentation.seg.nrrd").geometry
    labels, judge = read_annotation(SLICERIO / name, grid), slicerio.read_segmentation(str(SLICERIO / name))
    assert labels.classes.names == [segment["name"] for segment in judge["segments"]]
    layers = judge["voxels"] if judge["voxels"].ndim == 4 else judge["voxels"][None]
    masks = np.array([segment["labelValue"] == layers[segment.get("layer", 0)].T for segment in judge["segments"]])
    claims = masks.sum(axis=0)
    assert np.array_equal(labels.annotation, np.where(claims == 1, masks.argmax(axis=0) + 2, 0))
    assert bool(labels.overlaps) == (claims.max() > 1)


def test_these_bring_no_image():
    """Should a later version bring one, it wants a row in the table of docs/files.md."""
    assert [path.name for path in samples(HIGHDICOM)] == ["sRGB_v4_ICC_preference.icc"]
    assert samples(PYNRRD) == []
