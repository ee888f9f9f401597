"""Where a grid lies: conversions there and back, names of planes, and differences in words."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry

SHAPE = (4, 5, 6)
PLAIN = Geometry.from_axes(SHAPE, (0.5, 0.75, 2.0), (10, -20, 30))


def turn(axis, degrees):
    """Rotation matrix about one of the three axes."""
    a, b = (n for n in range(3) if n != axis)
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = math.cos(math.radians(degrees))
    matrix[a, b], matrix[b, a] = -math.sin(math.radians(degrees)), math.sin(math.radians(degrees))
    return matrix


def turned(directions):
    return Geometry.from_axes(SHAPE, (1, 1, 1), direction=np.asarray(directions, dtype=float).ravel())


@st.composite
def axes(draw, most_degrees=180):
    rotation = turn(0, draw(st.floats(-most_degrees, most_degrees))) @ turn(1, draw(st.floats(-most_degrees, most_degrees)))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    return {
        "shape_kji": draw(st.tuples(*[st.integers(1, 600)] * 3)),
        "spacing_ijk_mm": draw(st.tuples(*[st.floats(0.05, 20)] * 3)),
        "origin_lps_mm": draw(st.tuples(*[st.floats(-2000, 2000)] * 3)),
        "direction": tuple((rotation * signs).ravel()),
    }


@given(axes())
def test_lps_to_ras_and_back_changes_nothing(grid):
    geometry = Geometry.from_axes(**grid)
    assert Geometry.from_ijk_to_ras(geometry.shape_kji, geometry.ijk_to_ras()) == geometry


@given(axes())
def test_json_and_back_changes_nothing(grid):
    geometry = Geometry.from_axes(**grid)
    assert Geometry.from_json(json.loads(json.dumps(geometry.to_json()))) == geometry


@given(axes())
def test_spacing_origin_and_direction_are_those_it_was_made_from(grid):
    geometry = Geometry.from_axes(**grid)
    assert geometry.spacing_ijk_mm == pytest.approx(grid["spacing_ijk_mm"], rel=1e-12)
    assert geometry.spacing_kji_mm == geometry.spacing_ijk_mm[::-1]
    assert geometry.origin_lps_mm == grid["origin_lps_mm"]
    assert geometry.direction == pytest.approx(grid["direction"], abs=1e-12)


def test_ras_turns_the_signs_of_the_first_two_rows_only():
    assert PLAIN.ijk_to_ras().tolist() == [[-0.5, 0, 0, -10], [0, -0.75, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]]
    assert PLAIN.matrix.tolist() == [[0.5, 0, 0, 10], [0, 0.75, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]]


def test_spacing_scales_columns_not_rows():
    direction = (0, 0, 1, 1, 0, 0, 0, 1, 0)  # i runs along P, j along S, k along L
    assert Geometry.from_axes(SHAPE, (2, 3, 5), (0, 0, 0), direction).matrix[:3, :3].tolist() == [[0, 0, 5], [2, 0, 0], [0, 3, 0]]


def test_voxels_are_counted():
    assert PLAIN.voxels == 120


@pytest.mark.parametrize(
    ("directions", "planes"),
    [
        (np.eye(3), ("axial", "coronal", "sagittal")),
        (np.diag([-1, -1, 1]), ("axial", "coronal", "sagittal")),
        (np.diag([1, 1, -1]), ("axial", "coronal", "sagittal")),
        ([[0, 0, 1], [1, 0, 0], [0, -1, 0]], ("sagittal", "axial", "coronal")),  # as a sagittal series comes: i to P, j to I, k to L
        ([[1, 0, 0], [0, 0, 1], [0, -1, 0]], ("coronal", "axial", "sagittal")),  # as a coronal series comes: i to L, j to I, k to P
    ],
)
def test_planes_of_upright_grids(directions, planes):
    geometry = turned(directions)
    assert geometry.planes() == planes
    assert [geometry.plane_axis(plane) for plane in planes] == [0, 1, 2]


@given(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3), st.tuples(*[st.floats(-20, 20)] * 3))
def test_planes_of_permuted_flipped_and_tilted_grids(order, signs, degrees):
    upright = np.zeros((3, 3))
    upright[order, range(3)] = signs  # array axis i, j, k -> LPS axis order[0], order[1], order[2]
    tilt = turn(0, degrees[0]) @ turn(1, degrees[1]) @ turn(2, degrees[2])
    names = ("sagittal", "coronal", "axial")
    assert turned(tilt @ upright).planes() == (names[order[2]], names[order[1]], names[order[0]])


def test_each_plane_is_named_once_where_two_axes_favour_the_same():
    # rows L, P, S; i and j both lie nearest to L; i-P, j-L, k-S sums to 0.55 + 0.74 + 0.75, i-L, j-P, k-S only to 0.67 + 0.51 + 0.75
    directions = np.array([[-0.67, 0.74, 0.02], [-0.55, -0.51, 0.66], [0.50, 0.43, 0.75]])
    assert np.abs(directions).argmax(0).tolist() == [0, 0, 2]
    assert turned(directions).planes() == ("axial", "sagittal", "coronal")


def test_an_unknown_plane_is_refused():
    with pytest.raises(InputError, match=r"Unknown orientation 'Axial'\. Use axial, coronal or sagittal"):
        PLAIN.plane_axis("Axial")


def other(shape=SHAPE, spacing=(0.5, 0.75, 2.0), origin=(10, -20, 30), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    return Geometry.from_axes(shape, spacing, origin, direction)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (other(shape=(4, 5, 7)), "4 x 5 x 7 voxels instead of 4 x 5 x 6 (k x j x i)"),
        (other(spacing=(0.5, 0.75, 2.5)), "spacing 2.5 x 0.75 x 0.5 mm instead of 2 x 0.75 x 0.5 mm (k x j x i)"),
        (other(origin=(10, -20, 30.5)), "origin 10 x -20 x 30.5 instead of 10 x -20 x 30 (LPS mm)"),
        (other(direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)), "axes turned or flipped (corners up to 5 mm apart)"),  # i runs over 2 x 5 x 0.5 mm
        (other(direction=turn(2, 90).ravel()), "axes turned or flipped (corners up to 5.52 mm apart)"),  # sqrt(2) x sqrt(2.5^2 + 3^2)
    ],
)
def test_differences_are_said_in_words(grid, words):
    assert grid.difference_from(PLAIN) == words


@pytest.mark.parametrize("grid", [other(), other(origin=(10.0005, -20, 30)), other(spacing=(0.50001, 0.75, 2.0))])
def test_the_same_grid_within_header_rounding_has_no_difference(grid):
    assert grid.difference_from(PLAIN) == ""


def test_a_grid_flipped_about_its_own_middle_is_said_to_be_flipped():
    flipped = other(origin=(12.5, -20, 30), direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert flipped.difference_from(PLAIN) == "axes turned or flipped (corners up to 2.5 mm apart)"


def test_a_turn_is_named_before_the_origin_that_moved_farther():
    assert other(origin=(400, -20, 30), direction=turn(2, 2).ravel()).difference_from(PLAIN).startswith("axes turned")


def test_an_origin_that_is_the_same_is_not_blamed():
    large = Geometry.from_axes((10, 512, 512), (0.7, 0.7, 1))
    coarser = Geometry.from_axes((10, 512, 512), (0.70005, 0.7, 1))
    assert coarser.difference_from(large) == "spacing 1 x 0.7 x 0.70005 mm instead of 1 x 0.7 x 0.7 mm (k x j x i; corners up to 0.0255 mm apart)"
    turned_little = Geometry.from_axes((10, 512, 512), (0.7, 0.7, 1), direction=(1, -5e-5, 0, 5e-5, 1, 0, 0, 0, 1))
    assert turned_little.difference_from(large).startswith("axes turned")
    assert Geometry.from_axes((10, 512, 512), (0.7, 0.7, 1), (5, 0, 0), turned_little.direction).difference_from(large).startswith("origin 5 x 0 x 0")


def test_voxels_of_a_microscope_are_allowed_and_told_apart():
    small = Geometry.from_axes((2, 2, 2), (5e-5,) * 3)
    assert small.spacing_ijk_mm[0] == pytest.approx(5e-5)
    assert Geometry.from_axes((2, 2, 2), (5e-5,) * 3, (1e-4, 0, 0)).difference_from(small).startswith("origin")  # two voxels
    assert Geometry.from_axes((2, 2, 2), (5e-5,) * 3, (1e-6, 0, 0)).difference_from(small) == ""


def test_an_axis_of_one_voxel_has_no_sense_of_direction():
    flat = Geometry.from_axes((1, 5, 6), (1, 1, 1))
    assert Geometry.from_axes((1, 5, 6), (1, 1, 1), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1)).difference_from(flat) == ""


@given(axes(), axes())
def test_difference_is_empty_only_where_every_corner_agrees(first, second):
    one, two = Geometry.from_axes(**first), Geometry.from_axes(**{**second, "shape_kji": first["shape_kji"]})
    corners = np.array([[i, j, k, 1] for k in (0, one.shape_kji[0] - 1) for j in (0, one.shape_kji[1] - 1) for i in (0, one.shape_kji[2] - 1)])
    apart = np.abs(corners @ (one.matrix - two.matrix).T).max()
    assert one.difference_from(one) == ""
    if apart > 0.05:
        assert two.difference_from(one) != ""


@pytest.mark.parametrize("shape", [(5, 6), (0, 5, 6), (1, 2, 3, 4), (2.5, 3, 4), (float("inf"), 1, 1)])
def test_a_volume_without_three_axes_is_refused(shape):
    with pytest.raises(InputError, match="three axes of at least one voxel"):
        Geometry.from_axes(shape, (1, 1, 1))


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1, 0, 1]),
        np.diag([1, 1, np.nan, 1]),
        np.diag([1, np.inf, 1, 1]),
        np.eye(3),
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    ],
)
def test_axes_that_do_not_span_space_are_refused(matrix):
    with pytest.raises(InputError, match="axes do not span space"):
        Geometry(SHAPE, matrix)


def test_numpy_numbers_become_plain_ones_so_that_json_can_hold_them():
    geometry = Geometry(tuple(np.array(SHAPE)), np.eye(4, dtype=np.float32))
    assert json.loads(json.dumps(geometry.to_json()))["shape_kji"] == [4, 5, 6]
