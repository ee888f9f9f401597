"""RT structure sets of other programs: holes, outlines of the body, points, contours elsewhere; and filling, against a plain computation."""

import numpy as np
import pytest

import dicoms
from grids import AXIAL, OBLIQUE
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import find_series, read_annotation, write_dicom
from sparseseg.io.export import Dense
from sparseseg.io.rtstruct import inside, outlines

pydicom = dicoms.pydicom
SHAPE = (5, 14, 17)


def ring_mask(shape=SHAPE):
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 2:12, 3:14] = 1
    labels[1:3, 5:8, 6:10] = 0  # a hole on some slices
    labels[2:, 6, 7:9] = 2
    return labels


def structure_file(tmp_path, geometry, change=lambda data: None):
    geometry = Geometry(SHAPE, geometry.ijk_to_lps)
    stored = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    dicoms.write_series(tmp_path / "s", stored, geometry)
    series = find_series(tmp_path / "s")
    write_dicom(tmp_path / "rt.dcm", "rtstruct", Dense(ring_mask(), ClassTable.numbered(2)), series)
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    change(data)
    data.save_as(tmp_path / "rt.dcm")
    return tmp_path / "rt.dcm", series


@pytest.mark.parametrize("geometry", [AXIAL, OBLIQUE])
def test_what_is_written_comes_back(tmp_path, geometry):
    path, series = structure_file(tmp_path, geometry)
    read = read_annotation(path, series.geometry, series=series)
    assert np.array_equal(np.maximum(read.annotation, 1) - 1, ring_mask())
    assert (read.overlaps, read.remarks) == ({}, ())


def test_the_outline_of_the_body_is_left_out(tmp_path):
    def change(data):
        data.RTROIObservationsSequence[0].RTROIInterpretedType = "EXTERNAL"

    path, series = structure_file(tmp_path, AXIAL, change)
    read = read_annotation(path, series.geometry)
    assert np.array_equal(read.annotation == 2, ring_mask() == 2)
    assert "segment 1 is the outline of the body" in read.remarks[0]


def test_points_and_open_lines_are_counted(tmp_path):
    def change(data):
        for contour, kind in zip(data.ROIContourSequence[1].ContourSequence, ("POINT", "OPEN_PLANAR"), strict=False):
            contour.ContourGeometricType = kind

    path, series = structure_file(tmp_path, AXIAL, change)
    assert "2 contours that are points or open lines were left out" in read_annotation(path, series.geometry).remarks[0]


@pytest.mark.parametrize(("mm", "sentence"), [(0.9, "do not lie on the image's slices"), (-40, "outside the image")])
def test_contours_elsewhere_are_refused(tmp_path, mm, sentence):
    def change(data):
        for contour in data.ROIContourSequence[0].ContourSequence:
            points = np.reshape([float(v) for v in contour.ContourData], (-1, 3)) + np.array([0, 0, mm])
            contour.ContourData = [f"{v:.4f}" for v in points.ravel()]

    path, series = structure_file(tmp_path, AXIAL, change)
    with pytest.raises(InputError, match=sentence):
        read_annotation(path, series.geometry)


def test_a_damaged_contour_is_refused(tmp_path):
    def change(data):
        data.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2", "3", "4"]

    path, series = structure_file(tmp_path, AXIAL, change)
    with pytest.raises(InputError, match="not three numbers each"):
        read_annotation(path, series.geometry)


def test_filling_is_by_the_centres_of_pixels():
    triangle = np.array([(0.4, 0.4), (6.3, 0.4), (0.4, 5.2)])
    hole = np.array([(1.2, 1.2), (2.6, 1.2), (2.6, 2.6), (1.2, 2.6)])
    expected = np.zeros((7, 8), bool)
    for row in range(7):
        for column in range(8):
            expected[row, column] = column > 0.4 and row > 0.4 and (column - 0.4) / 5.9 + (row - 0.4) / 4.8 < 1
    expected[2, 2] = False
    assert np.array_equal(inside([triangle, hole], (7, 8)), expected)


@pytest.mark.parametrize("seed", range(20))
def test_any_mask_survives_its_outlines(seed):
    mask = np.random.default_rng(seed).random((9, 11)) < 0.6
    assert np.array_equal(inside(list(outlines(mask)), mask.shape), mask)
