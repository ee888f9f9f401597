"""Label maps as people have them: values, numbering, axis order; and files whose names or packing say something else than their content."""

import bz2
import gzip
import itertools
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from grids import AXIAL, LEFT_HANDED, OBLIQUE, image_array
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import AnnotationError, InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import read_annotation, read_dense, read_volume, write_segmentation, write_volume
from sparseseg.io.labelmap import ordered_as

MARKS = image_array() % 4  # 0 .. 3 everywhere


def saved(tmp_path, values, suffix=".nrrd", geometry=AXIAL):
    write_volume(tmp_path / f"map{suffix}", np.asarray(values), geometry)
    return tmp_path / f"map{suffix}"


# ---------------------------------------------------------------- values

VALUES = [(0, 1, 5), (0, 255), (0, 17, 53), (0, 1006, 2006), (0, 3, 70000), (0, 2)]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("dtype", ["i2", "i4", "i8", "f4", "u1"])
def test_each_value_that_occurs_is_a_segment(tmp_path, values, dtype):
    if max(values) > {"i2": 2**15 - 1, "u1": 255}.get(dtype, 2**31):
        pytest.skip("the type cannot hold them")
    places = image_array() % len(values)
    dense = read_dense(saved(tmp_path, np.choose(places, values).astype(dtype)), AXIAL)
    assert np.array_equal(dense.labels, places)
    assert dense.classes.names == [f"label {value}" for value in values[1:]]


def test_values_without_a_gap_keep_their_names(tmp_path):
    dense = read_dense(saved(tmp_path, MARKS), AXIAL)
    assert dense.classes == ClassTable.numbered(3)


@pytest.mark.parametrize(
    ("values", "names"),
    [((0, 1, 4, 2), ["segment 1", "segment 3"]), ((0, 1, 255, 0), ["segment 254"]), ((0, 1, 1035, 2035), ["label 1035", "label 2035"])],
)
def test_strokes_of_any_values(tmp_path, values, names):
    strokes = read_annotation(saved(tmp_path, np.choose(MARKS, values).astype(np.int16)), AXIAL)
    assert strokes.classes.names == names
    ranks = {value: rank for rank, value in enumerate(sorted(set(values) - {0, 1}), start=2)} | {0: 0, 1: 1}
    assert np.array_equal(strokes.annotation, np.choose(MARKS, [ranks[v] for v in values]))
    assert strokes.note.startswith("map.nrrd: 0: unlabelled, 1: background, ")


def test_nnunets_numbering_is_doubted_and_can_be_said(tmp_path):
    values = np.where(MARKS > 2, image_array() % 3, 3).astype(np.uint8)
    assert set(np.unique(values)) == {0, 1, 2, 3}
    path = saved(tmp_path, values)
    doubt = read_annotation(path, AXIAL).remarks[0]
    assert doubt.startswith("In map.nrrd, value 3 covers 75 % of the volume: nnU-Net's ignore label?")
    strokes = read_annotation(path, AXIAL, "0", unlabelled=3)
    assert np.array_equal(strokes.annotation, np.choose(values, [1, 2, 3, 0]))
    assert strokes.classes.names == ["label 1", "label 2"]
    assert strokes.remarks == ()


def test_itksnaps_numbering_can_be_said(tmp_path):
    strokes = read_annotation(saved(tmp_path, MARKS), AXIAL, "none")
    assert np.array_equal(strokes.annotation, np.choose(MARKS, [0, 2, 3, 4]))
    with pytest.raises(InputError, match="cannot mean both background and unlabelled"):
        read_annotation(saved(tmp_path, MARKS), AXIAL, "0")


def test_an_intensity_image_is_no_label_map(tmp_path):
    noise = np.random.default_rng(0).integers(0, 30000, (12, 20, 20)).astype(np.int16)
    grid = Geometry.from_axes(noise.shape, (1, 1, 1))
    with pytest.raises(InputError, match="more than 254 different values"):
        read_annotation(saved(tmp_path, noise, geometry=grid), grid)
    with pytest.raises(AnnotationError, match="holds no segment"):
        read_annotation(saved(tmp_path, MARKS % 2), AXIAL)


def test_whole_numbers_of_64_bits_are_an_image(tmp_path):
    for dtype in (np.int64, np.uint64):
        image = read_volume(saved(tmp_path, image_array().astype(dtype)))
        assert image.array.dtype == np.int32
        assert np.array_equal(image.array, image_array())
    with pytest.raises(InputError, match="beyond 32 bits"):
        read_volume(saved(tmp_path, image_array().astype(np.int64) * 2**40))


# ---------------------------------------------------------------- the same voxels in another order


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_every_order_of_the_axes_is_the_same_map(axes, flips):
    turned, grid = reordered(MARKS, OBLIQUE, axes, flips)
    back, geometry = ordered_as(turned, grid, OBLIQUE)
    assert np.array_equal(back, MARKS)
    assert geometry.difference_from(OBLIQUE) == ""


def reordered(array, geometry, axes, flips):
    """The voxels with array axes in another order and direction, by ITK, which is the judge."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing_ijk_mm)
    image.SetOrigin(geometry.origin_lps_mm)
    image.SetDirection(geometry.direction)
    image = sitk.Flip(sitk.PermuteAxes(image, axes), [flip < 0 for flip in flips])
    return sitk.GetArrayFromImage(image), Geometry.from_axes(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@pytest.mark.parametrize("geometry", [AXIAL, LEFT_HANDED, OBLIQUE])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".seg.nrrd"])
def test_turned_files_are_put_in_order_with_a_remark(tmp_path, geometry, suffix):
    turned, grid = reordered(MARKS.astype(np.uint8), geometry, (2, 0, 1), (1, -1, -1))
    path = tmp_path / f"map{suffix}"
    if suffix == ".seg.nrrd":
        write_segmentation(path, turned, grid, ClassTable.numbered(3))
        assert np.array_equal(read_annotation(path, geometry).annotation, np.choose(MARKS, [0, 2, 3, 4]))
        return
    write_volume(path, turned, grid)
    strokes = read_annotation(path, geometry)
    assert np.array_equal(strokes.annotation, MARKS)
    assert "in another order than the image" in strokes.remarks[0]


def test_a_mirrored_place_is_not_the_same(tmp_path):
    elsewhere = Geometry.from_axes(AXIAL.shape_kji, AXIAL.spacing_ijk_mm, (11, -20, 30), AXIAL.direction)
    with pytest.raises(InputError, match="does not lie on the image's grid: origin"):
        read_annotation(saved(tmp_path, MARKS, geometry=elsewhere), AXIAL)


# ---------------------------------------------------------------- true sentences


def test_a_header_without_its_voxels_says_what_it_needs(tmp_path):
    image = sitk.GetImageFromArray(image_array())
    for header, raw in (("é a.mhd", "é a.raw"), ("b.nhdr", "b.raw")):
        sitk.WriteImage(image, str(tmp_path / header))
        assert np.array_equal(read_volume(tmp_path / header).array, image_array())
        (tmp_path / raw).unlink()
        with pytest.raises(InputError, match=f"{header} needs {raw}, which is not beside it"):
            read_volume(tmp_path / header)


def test_packing_that_is_not_read_gets_its_name(tmp_path):
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: bzip2\n\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + bz2.compress(image_array().tobytes()))
    with pytest.raises(InputError, match=r"a\.nrrd is compressed by bzip2"):
        read_volume(tmp_path / "a.nrrd")
    write_volume(tmp_path / "b.nrrd", image_array(), AXIAL)
    (tmp_path / "b.nrrd.gz").write_bytes(gzip.compress((tmp_path / "b.nrrd").read_bytes()))
    with pytest.raises(InputError, match=r"b\.nrrd\.gz is packed by gzip"):
        read_volume(tmp_path / "b.nrrd.gz")


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz", ".mha"])
@pytest.mark.parametrize("name", ["no suffix", "other.png", "x.nii", "y.nrrd", "z.mha", "w.dcm"])
def test_the_content_decides(tmp_path, suffix, name):
    path = saved(tmp_path, image_array(), suffix, OBLIQUE)
    shutil.copy(path, tmp_path / name)
    image = read_volume(tmp_path / name)
    assert np.array_equal(image.array, image_array())
    assert image.geometry.difference_from(OBLIQUE) == ""
