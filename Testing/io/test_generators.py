"""Files of the field that were once read wrongly, as generators in shared/faults/files make them: read as their makers meant, or one true sentence.

What is said of each class in detail is in the other tests here; these take the generators as they are, where they are.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from sparseseg import cli
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import SparseSegError
from sparseseg.io import files

FAULTS = Path(__file__).resolve().parents[3] / "shared" / "faults" / "files"


@pytest.fixture
def made(tmp_path):
    def make(name):
        found = sorted(FAULTS.glob(f"{name}-*"))
        if not found:
            pytest.skip("shared/faults is not there")
        subprocess.run([sys.executable, str(found[0] / "make.py"), str(tmp_path)], check=True, capture_output=True, timeout=120)
        return tmp_path

    return make


@pytest.fixture
def run(capfd):
    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        said = "".join(capfd.readouterr())
        assert "Traceback" not in said
        return code, said

    return run


def phantom():
    """As the generators make it: (K, J, I) int16, and its labels."""
    k, j, i = np.indices((12, 24, 28))
    image, truth = np.random.default_rng(0).normal(0, 8, (12, 24, 28)), np.zeros((12, 24, 28), np.uint8)
    for n, (y, x) in enumerate(((8, 8), (16, 19)), start=1):
        ball = ((k - 5.5) / 4.8) ** 2 + ((j - y) / 6) ** 2 + ((i - x) / 7) ** 2 < 1
        image[ball] += 100 * n
        truth[ball] = n
    return np.rint(image).astype(np.int16), truth


def array_of(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def series_in(folder):
    return sorted(entry for entry in folder.iterdir() if entry.is_dir())


def test_a_series_that_is_read_is_exported_too(made, run):
    folder = made("01")
    for series in series_in(folder):
        code, said = run("export", folder / "labels.nrrd", series, "-o", folder / f"{series.name}.dcm")
        assert code in (0, 2), said
        if code == 0:
            back = folder / f"{series.name}.nrrd"
            assert run("import", folder / f"{series.name}.dcm", series, "-o", back)[0] == 0
            labels = array_of(folder / "labels.nrrd")
            assert ((array_of(back) > 0) >= (labels > 0)).all()
    assert len(list(folder.glob("*.dcm"))) >= 5


def test_two_transforms_of_a_nifti_are_told_of_and_come_back(made):
    nibabel = pytest.importorskip("nibabel")
    folder = made("02")
    for path in sorted(folder.glob("*-q*.nii.gz")):
        try:
            image = files.read_volume(path)
        except SparseSegError as error:
            assert "transform" in error.sentence or "sheared" in error.sentence, path.name
            continue
        header = nibabel.load(path)
        same = np.allclose(header.get_qform(), header.get_sform(), atol=1e-4)
        if header.header["qform_code"] and header.header["sform_code"] and not same:
            assert any("qform" in remark and "sform" in remark for remark in image.remarks), path.name
        out = folder / "out.nii.gz"
        files.write_segmentation(out, np.zeros(image.array.shape, np.uint8), image.geometry, ClassTable.numbered(1), like=image)
        written = nibabel.load(out)
        for of in ("get_qform", "get_sform"):
            np.testing.assert_allclose(getattr(written, of)(), getattr(header, of)(), atol=1e-3, err_msg=path.name)
        assert [int(written.header[code]) for code in ("qform_code", "sform_code")] == [int(header.header[c]) for c in ("qform_code", "sform_code")]


def test_monochrome1_has_the_same_values_by_every_decoder(made):
    folder = made("03")
    values = np.load(folder / "values.npy")
    for series in series_in(folder):
        np.testing.assert_array_equal(files.read_volume(series).array, values, err_msg=series.name)


def test_each_value_of_a_label_map_is_a_segment(made, run):
    folder = made("04")
    for name in ("freesurfer-17-53", "freesurfer-1006-2006", "mask-0-255", "only-5"):
        code, said = run("export", folder / f"{name}.nii.gz", folder / "series", "-o", folder / f"{name}.dcm")
        assert code == 0, said
        back = folder / f"{name}.nrrd"
        assert run("import", folder / f"{name}.dcm", folder / "series", "-o", back)[0] == 0
        values = np.unique(array_of(folder / f"{name}.nii.gz"))
        assert len(np.unique(array_of(back))) == len(values), name


@pytest.mark.slow
def test_a_path_that_the_console_has_no_letters_for_is_said_all_the_same(made):
    folder = made("06")
    out = next(entry for entry in folder.iterdir() if entry.is_dir()) / "out.nrrd"
    command = [sys.executable, "-m", "sparseseg", "segment", str(folder / "image.nrrd"), str(folder / "strokes.nrrd"), "-o", str(out), "--steps", "1"]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert out.exists() and b"Traceback" not in done.stderr


def test_an_image_of_64_bits_is_read(made):
    folder = made("07")
    assert files.read_volume(folder / "image.nrrd").array.dtype.kind in "if"
    files.read_volume(folder / "unsigned.nii.gz")


@pytest.mark.parametrize("name", ["nnunet", "itksnap"])
def test_other_numberings_are_told(made, name):
    folder = made("08")
    image = files.read_volume(folder / "image.nrrd")
    found = files.read_annotation(folder / f"{name}.nii.gz", image.geometry)
    said = " ".join([*map(str, found.remarks), found.note])
    assert re.search(r"\b1\b.*background", said) and re.search(r"\b2\b.*segment", said)
    if name == "nnunet":
        assert "covers" in said


def test_a_seg_of_another_patient_is_refused_until_it_is_meant(made, run):
    folder = made("10")
    assert run("export", folder / "labels.nrrd", folder / "a", "-o", folder / "a.dcm")[0] == 0
    arguments = ("import", folder / "a.dcm", folder / "b", "-o", folder / "strokes.seg.nrrd")
    assert run(*arguments)[0] == 2
    assert run(*arguments, "--other-patient")[0] == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("alone.mhd", r"needs .*which is not"),
        ("alone.nhdr", r"needs .*which is not"),
        ("bzip2.nrrd", r"is compressed by bzip2"),
        ("version2.nii", None),
        ("zipped-but-named.nii", None),
    ],
)
def test_a_file_is_read_or_refused_for_what_it_is(made, name, sentence):
    folder = made("11")
    if sentence is None:
        assert files.read_volume(folder / name).array.ndim == 3
    else:
        with pytest.raises(SparseSegError, match=sentence):
            files.read_volume(folder / name)


def test_headers_out_of_form_are_read_or_named(made):
    folder = made("12")
    for series in series_in(folder):
        try:
            files.read_volume(series)
        except SparseSegError as error:
            assert "DICOM image" not in error.sentence, series.name


def test_floats_and_high_bits_keep_their_values(made):
    folder = made("14")
    image, _ = phantom()
    np.testing.assert_allclose(files.read_volume(folder / "suv").array, image * 0.05 + 3, atol=1e-3)
    np.testing.assert_allclose(files.read_volume(folder / "adc").array, image * 0.001, atol=1e-4)
    np.testing.assert_array_equal(files.read_volume(folder / "left-aligned").array, image + 300)


def test_three_segments_are_three_whatever_their_values(made):
    folder = made("15")
    image = files.read_volume(folder / "image.nrrd")
    classes = files.read_annotation(folder / "strokes.seg.nrrd", image.geometry).classes
    assert len(classes) == 2 and classes.background.name == "Background"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_nothing_is_named(made):
    folder = made("17")
    with pytest.raises(SparseSegError, match="link to a file that is not there"):
        files.read_volume(folder / "series")


def test_a_file_without_an_ending_is_known_by_its_content(made, run):
    folder = made("19")
    assert run("export", folder / "labels.nrrd", folder / "series", "-o", folder / "a.dcm")[0] == 0
    shutil.copy(folder / "a.dcm", folder / "SEG0001")
    assert run("import", folder / "SEG0001", folder / "series", "-o", folder / "back.seg.nrrd")[0] == 0
    image = files.read_volume(folder / "series")
    assert (folder / "IM_0001").exists() and image.array.shape == (12, 24, 28)
    try:
        files.read_volume(folder / "IM_0001")
    except SparseSegError as error:
        assert "not of a known image format" not in error.sentence
