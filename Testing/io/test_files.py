"""Volumes and label maps in and out, voxel for voxel, outputs that fail, and each refusal in words."""

import contextlib
import gzip
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from grids import AXIAL, LEFT_HANDED, OBLIQUE, image_array, names_in
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import AnnotationError, InputError, OutputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import files, output
from sparseseg.io.files import check_output, read_annotation, read_volume, write_annotation, write_segmentation, write_volume

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


# ---------------------------------------------------------------- volumes


@pytest.mark.parametrize("geometry", [AXIAL, LEFT_HANDED, OBLIQUE])
@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_volume_round_trip(tmp_path, suffix, dtype, geometry):
    path = tmp_path / "dossier à lire" / f"bild œ é 1{suffix}"
    path.parent.mkdir()
    write_volume(path, image_array(dtype), geometry)
    volume = read_volume(path)
    assert volume.geometry.difference_from(geometry) == ""
    assert volume.array.dtype == (np.float32 if dtype == np.float64 else dtype)
    assert np.array_equal(volume.array, image_array(dtype))
    assert names_in(path.parent) == [path.name]


def test_mhd_with_its_raw_file(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(image_array()), str(tmp_path / "a b.mhd"))
    assert np.array_equal(read_volume(tmp_path / "a b.mhd").array, image_array())


def test_one_time_point_of_four_dimensions_is_a_volume(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(image_array()[None], isVector=False), str(tmp_path / "t.nii"))
    assert np.array_equal(read_volume(tmp_path / "t.nii").array, image_array())


def refused(tmp_path, array, match, suffix=".nrrd", vector=False):
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    with pytest.raises(InputError, match=match):
        read_volume(path)


def test_refused_images(tmp_path):
    refused(tmp_path, image_array()[0], "2 dimensions instead of three")
    refused(tmp_path, np.stack([image_array()] * 2), "four dimensions", ".nii")
    refused(tmp_path, image_array(shape=(4, 5, 6, 3)).astype(np.uint8), "3 values in each voxel", vector=True)
    refused(tmp_path, image_array()[:1], r"only one slice \(6 x 5 x 1")
    refused(tmp_path, image_array()[:, :, :1], r"only one slice \(1 x 5 x 4")
    refused(tmp_path, np.full((4, 5, 6), 7, np.int16), r"same value \(7\)")
    refused(tmp_path, image_array(np.complex64), "complex numbers")
    for value in (np.nan, np.inf, -np.inf):
        array = image_array(np.float32)
        array[2, 3, 4] = value
        refused(tmp_path, array, "not a number or infinite")
    refused(tmp_path, image_array(np.float64) * 1e300, "not a number or infinite")


def test_refused_files(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        read_volume(tmp_path / "none.nrrd")
    (tmp_path / "notes.png").write_text("hello")
    with pytest.raises(InputError, match="not of a known image format"):
        read_volume(tmp_path / "notes.png")
    with pytest.raises(InputError, match="no DICOM image"):
        read_volume(tmp_path)
    for suffix in files.READ_SUFFIXES:
        (tmp_path / f"empty{suffix}").write_bytes(b"")
        with pytest.raises(InputError, match="0 bytes"):
            read_volume(tmp_path / f"empty{suffix}")
        for content in (b"hello" * 300, b"NRRD0004\n", b"\x1f\x8bxx" * 100):
            (tmp_path / f"foreign{suffix}").write_bytes(content)
            with pytest.raises(InputError, match=r"damaged, cut short, or not an image|holds no DICOM image"):
                read_volume(tmp_path / f"foreign{suffix}")


@pytest.mark.parametrize("part", [0.05, 0.5, 0.97])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_truncated_files_are_refused(tmp_path, suffix, zipped, part):
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(-1000, 1000, (8, 30, 30)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), zipped)
    assert np.array_equal(read_volume(path).array, noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(InputError, match="damaged, cut short, or not an image"):
        read_volume(path)


def test_nifti_of_several_gzip_members_is_whole(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(image_array()), str(tmp_path / "a.nii"))
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw[:400]) + gzip.compress(raw[400:]))
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").array, image_array())


def test_axes_that_are_not_at_right_angles(tmp_path):
    path = tmp_path / "sheared.nii"
    sitk.WriteImage(sitk.GetImageFromArray(image_array()), str(path))
    head = bytearray(path.read_bytes())
    struct.pack_into("<hh", head, 252, 0, 1)  # no qform; sform, whose first row is next
    struct.pack_into("<4f", head, 280, 1, 0.5, 0, 0)
    path.write_bytes(head)
    with pytest.raises(InputError, match="not at right angles"):
        read_volume(path)
    matrix = np.eye(4)
    matrix[0, 1] = 0.5
    with pytest.raises(OutputError, match="could not be written"):
        write_volume(tmp_path / "b.nii", image_array(), Geometry((4, 5, 6), tuple(map(tuple, matrix))))
    assert names_in(tmp_path) == ["sheared.nii"]


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".mha"])
def test_damage_is_refused_or_harmless(tmp_path, suffix):
    """Single changed bytes anywhere: labels or a refusal in words, never another exception."""
    path = tmp_path / f"a{suffix}"
    write_annotation(path, (image_array() % 4).astype(np.uint8), AXIAL, ClassTable.numbered(2))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for place, value in zip(random.integers(0, len(whole), 60), random.integers(0, 256, 60), strict=True):
        path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            read_annotation(path, AXIAL)


def test_folder_as_annotation(tmp_path):
    with pytest.raises(InputError, match="is a folder, not an image file"):
        read_annotation(tmp_path, AXIAL)


def test_refusal_has_a_sentence_and_advice(tmp_path):
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "none.nrrd")
    assert caught.value.sentence.endswith(".")
    assert caught.value.advice.endswith(".")


# ---------------------------------------------------------------- annotation in


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_label_map(tmp_path, suffix):
    values = image_array(np.int16) % 4
    write_volume(tmp_path / f"a{suffix}", values, OBLIQUE)
    labels = read_annotation(tmp_path / f"a{suffix}", OBLIQUE, "1")
    assert labels.annotation.dtype == np.uint8
    assert np.array_equal(labels.annotation, values)
    assert labels.classes == ClassTable.numbered(2)
    assert (labels.overlaps, labels.header) == ({}, {})


def test_refused_label_maps(tmp_path):
    def check(array, match, error=InputError, background=None):
        write_volume(tmp_path / "a.nrrd", array, AXIAL)
        with pytest.raises(error, match=match):
            read_annotation(tmp_path / "a.nrrd", AXIAL, background)

    check(image_array(np.float32) / 2, "not whole numbers")
    check(image_array() - 1, r"negative values \(down to -1\)")
    check(image_array() % 2, "largest value is 1", AnnotationError)
    check(image_array() * 0, "largest value is 0", AnnotationError)
    check(image_array() % 3, "background is a value .* not 'liver'", background="liver")


# ---------------------------------------------------------------- out


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
def test_segmentation_as_label_map(tmp_path, suffix):
    dense = (image_array() % 3).astype(np.uint8)
    write_segmentation(tmp_path / f"a{suffix}", dense, OBLIQUE, ClassTable.numbered(2))
    volume = read_volume(tmp_path / f"a{suffix}")
    assert np.array_equal(volume.array, dense)
    assert volume.array.dtype == np.uint8
    assert volume.geometry.difference_from(OBLIQUE) == ""


# ---------------------------------------------------------------- output that fails


def test_check_output(tmp_path):
    with pytest.raises(InputError, match="format is not known"):
        check_output(tmp_path / "a.png")
    with pytest.raises(OutputError, match="no folder"):
        check_output(tmp_path / "none" / "a.nrrd")
    (tmp_path / "a.nrrd").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "a.nrrd")
    (tmp_path / "b.nrrd").write_text("old")
    check_output(tmp_path / "b.nrrd")
    check_output(tmp_path / "c é.seg.nrrd")
    assert names_in(tmp_path) == ["a.nrrd", "b.nrrd"]
    assert (tmp_path / "b.nrrd").read_text() == "old"


def test_check_output_without_permission(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(OutputError, match=r"cannot be written to \(Permission denied\)"):
        check_output(tmp_path / "a.nrrd")


def test_arguments_that_do_not_fit(tmp_path):
    dense = (image_array() % 3).astype(np.uint8)
    with pytest.raises(InputError, match="up to 2, but the table of segments to 1"):
        write_segmentation(tmp_path / "a.seg.nrrd", dense, AXIAL, ClassTable.numbered(1))
    with pytest.raises(InputError, match="do not fit a grid"):
        write_segmentation(tmp_path / "a.seg.nrrd", dense[1:], AXIAL, ClassTable.numbered(2))
    with pytest.raises(InputError, match="do not fit a grid"):
        write_annotation(tmp_path / "a.seg.nrrd", dense.astype(int), AXIAL, ClassTable.numbered(2))
    with pytest.raises(InputError, match="is not an image"):
        write_volume(tmp_path / "a.nrrd", dense > 0, AXIAL)
    with pytest.raises(InputError, match="name of a segmentation"):
        write_volume(tmp_path / "a.seg.nrrd", dense, AXIAL)
    assert names_in(tmp_path) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import OutputError
from sparseseg.io.files import write_segmentation
from sparseseg.contract.geometry import Geometry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
noise = np.random.default_rng(0).integers(0, 255, (20, 60, 60)).astype(np.uint8)
try:
    write_segmentation(Path(sys.argv[1]), noise, Geometry.from_axes(noise.shape, (1, 1, 1)), ClassTable.numbered(254))
except OutputError as error:
    sys.exit(0 if "could not be written" in str(error) else 5)
sys.exit(6)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX feature")
@pytest.mark.parametrize("suffix", [suffix for suffix in output.WRITE_SUFFIXES if suffix != ".dcm"])
def test_full_disk_leaves_the_earlier_file(tmp_path, suffix):
    if suffix in output.PACKAGES:
        pytest.importorskip(output.PACKAGES[suffix], reason="the extra `large` is not installed")
    path, earlier = tmp_path / f"a{suffix}", suffix != ".zarr"  # which is never replaced
    if earlier:
        path.write_text("earlier")
    package = Path(files.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], env=os.environ | {"PYTHONPATH": str(package)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path) == ([path.name] if earlier else [])
    assert not earlier or path.read_text() == "earlier"


def test_failed_rename_leaves_nothing_behind(tmp_path, monkeypatch):
    def locked(*_):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "replace", locked)
    with pytest.raises(OutputError, match=r"could not be written \(in use\)"):
        write_volume(tmp_path / "a.nrrd", image_array(), AXIAL)
    assert names_in(tmp_path) == []


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize("case", ["ct-abdomen", "ct-aorta", "ct-dicom", "mr-macaque-brain"])
def test_real_cases(tmp_path, case):
    folder = DATA / case
    if not folder.is_dir():
        pytest.skip(f"development data {case} is not beside the repository")
    volume = read_volume(folder / "dicom" if case == "ct-dicom" else folder / "image.nii.gz")
    labels = read_annotation(folder / "annotations" / "strokes-3.nii.gz", volume.geometry)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "truth.nii.gz")))
    assert volume.array.shape == labels.annotation.shape == truth.shape
    painted = labels.annotation > 1
    assert np.mean(truth[painted] + 1 == labels.annotation[painted]) > 0.99
    write_annotation(tmp_path / "a.seg.nrrd", labels.annotation, volume.geometry, labels.classes)
    assert np.array_equal(read_annotation(tmp_path / "a.seg.nrrd", volume.geometry).annotation, labels.annotation)


def test_real_dicom_without_a_slice_is_refused(tmp_path):
    source = DATA / "ct-dicom" / "dicom"
    if not source.is_dir():
        pytest.skip("development data ct-dicom is not beside the repository")
    for n, path in enumerate(sorted(source.iterdir())[:8]):
        if n != 4:
            shutil.copy(path, tmp_path / path.name)
    with pytest.raises(InputError, match="missing"):
        read_volume(tmp_path)
