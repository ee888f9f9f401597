"""Hints: read or refused with the key named, and back from JSON as they were; regions as voxels, against brute force."""

import copy
import json

import numpy as np
import pytest

from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, classes_of
from sparseseg.contract.region import Region

TABLE = ClassTable((Segment("Segment_7", "liver", (1, 0, 0)), Segment("Segment_2", "spleen", (0, 1, 0)), Segment("Segment_3", "spleen", (0, 0, 1))))
GRID = Geometry.from_axes((10, 20, 30), (1.0, 2.0, 3.0), (-5, 7, 11))  # LPS: x -5..24, y 7..45, z 11..38
FULL = {
    "hints_version": 1,
    "coordinates": "LPS",
    "segments": {
        "liver": {
            "roi": {"center": [5, 21, 23], "size": [8, 12, 9], "orientation": [0, -1, 0, 1, 0, 0, 0, 0, 1]},
            "points": [[5, 21, 23], {"at": [20, 40, 35], "inside": False, "radius_mm": 4}],
            "one_piece": True,
            "no_holes": True,
            "volume_ml": [0.1, None],
            "apart_from": ["Segment_2"],
        },
        "Segment_3": {"volume_ml": [None, 2]},
    },
    "outside": [{"at": [-5, 7, 11], "radius_mm": 0}, [24, 45, 38]],
}


def read(data=FULL):
    return Hints.from_json(json.loads(json.dumps(data)), TABLE, GRID)


def changed(*path, to):
    data = copy.deepcopy(FULL)
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return data


def test_everything_that_a_file_says_is_understood():
    liver, spleen, other = read().segments
    assert (liver.roi.center_lps_mm, liver.roi.size_mm) == ((5, 21, 23), (8, 12, 9))
    assert liver.roi.axes == ((0, 1, 0), (-1, 0, 0), (0, 0, 1))  # the columns
    assert liver.inside == (Point((5, 21, 23)),)
    assert liver.outside == (Point((20, 40, 35), 4),)
    assert (liver.one_piece, liver.no_holes, liver.volume_ml, liver.apart_from) == (True, True, (0.1, None), (2,))
    assert spleen.roi is None and not spleen.shapes and not spleen.inside
    assert other.volume_ml == (None, 2)
    assert read().outside == (Point((-5, 7, 11), 0), Point((24, 45, 38)))
    assert read().apart == ((1, 2),)


def test_hints_come_back_from_json_as_they_were():
    hints = read()
    assert Hints.from_json(json.loads(json.dumps(hints.to_json(TABLE))), TABLE, GRID) == hints


def test_coordinates_are_ras_unless_said_otherwise():
    data = {"hints_version": 1, "segments": {"liver": {"points": [[-5, -21, 23]], "roi": {"center": [-4, -20, 23], "size": [8, 8, 8]}}}}
    liver = read(data).segments[0]
    assert liver.inside == (Point((5, 21, 23)),)
    assert liver.roi.center_lps_mm == (4, 20, 23)
    assert np.abs(liver.roi.axes).tolist() == np.eye(3).tolist()


LIVER = ("segments", "liver")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "the file must be a table"),
        ({}, "hints_version must be 1"),
        (changed("hints_version", to=2), "hints_version must be 1, got 2"),
        (changed("hints_version", to=True), "hints_version must be 1"),
        (changed("coordinates", to="IJK"), "coordinates must be RAS or LPS"),
        (changed("notes", to=""), "the file has an unknown key 'notes'"),
        (changed("segments", to=[]), "segments must be a table"),
        (changed("segments", "kidney", to={}), "'kidney', but there is no such segment. There are liver"),
        (changed("segments", "spleen", to={}), "'spleen', which 2 segments are called"),
        (changed("segments", "Segment_7", to={}), "liver twice, as 'liver' and 'Segment_7'"),
        (changed(*LIVER, "ROI", to={}), "liver has an unknown key 'ROI'. Known: apart_from"),
        (changed(*LIVER, "roi", to=[1]), "liver, roi must be a table"),
        (changed(*LIVER, "roi", "centre", to=[1, 2, 3]), "liver, roi has an unknown key 'centre'"),
        (changed(*LIVER, "roi", "center", to=None), "liver, roi, center must be 3 numbers"),
        (changed(*LIVER, "roi", "center", to=[1, 2]), "liver, roi, center must be 3 numbers"),
        (changed(*LIVER, "roi", "center", to=[1, 2, float("nan")]), "liver, roi, center must be a number, got nan"),
        (changed(*LIVER, "roi", "center", to=[1, 2, True]), "liver, roi, center must be a number, got True"),
        (changed(*LIVER, "roi", "center", to=[1, 2, "3"]), "liver, roi, center must be a number, got '3'"),
        (changed(*LIVER, "roi", "size", to=[1, 0, 2]), "size must be above 0"),
        (changed(*LIVER, "roi", "center", to=[500, 0, 0]), "liver, roi holds no voxel of the volume"),
        (changed(*LIVER, "roi", "orientation", to=[1, 0, 0, 1, 0, 0, 0, 0, 1]), "three directions of length 1 at right angles"),
        (changed(*LIVER, "roi", "orientation", to=[[1, 0, 0], 7]), "orientation must be 9 numbers"),
        (changed(*LIVER, "points", to={}), "liver, points must be a list"),
        (changed(*LIVER, "points", to=[7]), "liver, point 1 must be a table"),
        (changed(*LIVER, "points", to=[{"inside": True}]), "liver, point 1, at must be 3 numbers"),
        (changed(*LIVER, "points", to=[{"at": [1, 2, 3], "inside": 1}]), "point 1, inside must be true or false"),
        (changed(*LIVER, "points", to=[{"at": [1, 2, 3], "radius_mm": -1}]), "radius_mm must not be negative"),
        (changed(*LIVER, "points", to=[[5, 21, 23], [5, 60, 23]]), "liver, inside point 2 lies outside of the volume"),
        (changed(*LIVER, "points", to=[[20, 40, 35]]), "liver, inside point 1 lies outside of its roi"),
        (changed(*LIVER, "one_piece", to="yes"), "liver, one_piece must be true or false"),
        (changed(*LIVER, "no_holes", to=None), "liver, no_holes must be true or false"),
        (changed(*LIVER, "volume_ml", to=5), r"liver, volume_ml must be \[least, most\]"),
        (changed(*LIVER, "volume_ml", to=[3, 2]), "has its least, 3, above its most, 2"),
        (changed(*LIVER, "volume_ml", to=[-1, None]), "must not be negative"),
        (changed(*LIVER, "volume_ml", to=[5, None]), "at least 5, but its roi holds .* ml only"),
        (changed(*LIVER, "apart_from", to="spleen"), "liver, apart_from must be a list"),
        (changed(*LIVER, "apart_from", to=["liver"]), "apart_from names the segment itself"),
        (changed(*LIVER, "apart_from", to=["lung"]), "liver, apart_from names 'lung', but there is no such segment"),
        (changed(*LIVER, "apart_from", to=[["lung"]]), "there is no such segment"),
        (changed("outside", to=[{"at": [0, 20, 20], "inside": False}]), "outside, point 1 has an unknown key 'inside'"),
        (changed("outside", to=[[0, 20, 99]]), "outside, point 1 lies outside of the volume"),
        (changed("outside", to=[[5, 22, 23]]), "liver, inside point 1 lies within the radius of outside, point 1, which contradicts it"),
        (changed("outside", to=[{"at": [5, 30, 23], "radius_mm": 9}]), "liver, inside point 1 lies within the radius of outside, point 1"),
        (changed(*LIVER, "points", to=[[5, 21, 23], {"at": [5, 21, 23], "inside": False}]), "liver, outside point 1 lies within .* inside point 1"),
        (changed("segments", "Segment_3", to={"points": [[5, 21, 23]]}), "spleen, inside point 1 lies within the radius of liver, inside point 1"),
    ],
)
def test_what_is_wrong_is_named(data, words):
    with pytest.raises(InputError, match=words):
        Hints.from_json(data, TABLE, GRID)


def test_points_that_say_the_same_or_of_different_things_may_lie_together():
    twice = [[5, 21, 23], [5, 21, 23]]
    not_spleen = {"points": [{"at": [5, 21, 23], "inside": False}]}
    hints = read(changed("segments", "Segment_2", to=not_spleen) | {"outside": []})
    assert len(hints.segments[0].inside) == len(hints.segments[1].outside) == 1
    assert len(read(changed(*LIVER, "points", to=twice)).segments[0].inside) == 2


def test_a_file_may_bring_its_own_segments():
    assert classes_of({"hints_version": 1, "segments": {"b": {}, "a": {}}}).names == ["b", "a"]
    with pytest.raises(InputError, match="segments is empty"):
        classes_of({"hints_version": 1})


# ---------------------------------------------------------------- regions


def turned(rng):
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return axes


def oblique(shape, rng):
    matrix = np.eye(4)
    matrix[:3, :3] = turned(rng) * [0.7, 1.1, 2.5]
    matrix[:3, 3] = rng.normal(size=3)
    return Geometry(shape, tuple(map(tuple, matrix)))


def centres(geometry):
    """(3, n) LPS mm of all voxels in their order in memory."""
    k, j, i = np.indices(geometry.shape_kji).reshape(3, -1)
    return (geometry.matrix @ np.stack([i, j, k, np.ones_like(i)]))[:3]


def as_mask(region, shape):
    mask = np.zeros(shape, bool)
    for k in range(region.box[0].start, region.box[0].stop):
        mask[k][region.box[1:]] = region.plane(k)
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_a_region_holds_the_voxels_whose_centres_lie_in_it(seed):
    rng, shape = np.random.default_rng(seed), (6, 7, 9)
    grid = oblique(shape, rng)
    at = centres(grid)
    center = at[:, rng.integers(at.shape[1])] + rng.normal(size=3) * 0.3
    axes, size = (turned(rng) if seed % 3 else np.array(grid.direction).reshape(3, 3).T), rng.uniform(1, 9, 3)
    expected = (np.abs(axes @ (at - center[:, None])) <= size[:, None] / 2).all(axis=0).reshape(shape)
    region = Region.of_box(center, size, axes, grid)
    if not expected.any():
        assert region is None
        return
    assert (as_mask(region, shape) == expected).all()
    assert region.voxels == expected.sum()
    assert region.fills_box == (seed % 3 == 0)
    assert region.holds(np.indices(shape).reshape(3, -1)).reshape(shape).tolist() == expected.tolist()
    assert region.places().T.tolist() == np.argwhere(expected).tolist()
    assert region.volume_ml == pytest.approx(expected.sum() * 0.7 * 1.1 * 2.5 / 1000)


@pytest.mark.parametrize("seed", range(6))
def test_a_ball_holds_what_is_near_its_centre_and_one_voxel_at_least(seed):
    rng, shape = np.random.default_rng(seed), (6, 7, 9)
    grid = oblique(shape, rng)
    at = centres(grid)
    center = at[:, rng.integers(at.shape[1])] + rng.normal(size=3) * 0.1
    far = np.linalg.norm(at - center[:, None], axis=0).reshape(shape)
    assert (as_mask(Region.of_ball(center, 2.0, grid), shape) == (far <= 2.0)).all()
    alone = as_mask(Region.of_ball(center, 0.0, grid), shape)
    assert alone.sum() == 1 and far[alone][0] == far.min()


def test_a_face_on_a_voxels_centre_is_inside():
    grid = Geometry.from_axes((5, 5, 5), (0.1, 0.3, 0.7))
    region = Region.of_box((0.2, 0.6, 1.4), (0.2, 0.6, 1.4), np.eye(3), grid)
    assert region.box == (slice(1, 4), slice(1, 4), slice(1, 4))
