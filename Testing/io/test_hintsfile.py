"""Hints files, and Slicer's own Markups files that they name."""

import json

import numpy as np
import pytest

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point
from sparseseg.io.hintsfile import read_hints

TABLE = ClassTable.numbered(1, ["liver"])
GRID = Geometry.from_axes((10, 20, 30), (1, 1, 1))
ROI = {  # as Slicer 5 writes it, shortened
    "@schema": "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#",
    "markups": [
        {
            "type": "ROI",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "roiType": "Box",
            "center": [10.0, 8.0, 5.0],
            "orientation": [-0.8, 0.6, 0.0, -0.6, -0.8, 0.0, 0.0, 0.0, 1.0],
            "size": [8.0, 6.0, 4.0],
            "insideOut": False,
        }
    ],
}
POINTS = {
    "markups": [
        {
            "type": "Fiducial",
            "coordinateSystem": "RAS",
            "coordinateUnits": ["mm", "UCUM", "millimeter"],
            "controlPoints": [
                {"id": "1", "label": "F-1", "position": [-10.0, -8.0, 5.0], "positionStatus": "defined"},
                {"id": "2", "label": "F-2", "position": [0.0, 0.0, 0.0], "positionStatus": "undefined"},
                {"id": "3", "label": "F-3", "position": [-11.0, -9.0, 5.0]},
            ],
        }
    ]
}


@pytest.fixture
def write(tmp_path):
    def write_file(name, data):
        (tmp_path / name).write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
        return tmp_path / name

    write_file("R.mrk.json", ROI)
    write_file("F.mrk.json", POINTS)
    return write_file


def hints_file(write, liver, **rest):
    return write("hints.json", {"hints_version": 1, "segments": {"liver": liver}, **rest})


@pytest.mark.parametrize("system", ["RAS", "LPS"])
def test_markups_are_taken_in_whatever_coordinates_either_file_has(write, system):
    path = hints_file(
        write,
        {"roi": {"file": "R.mrk.json"}, "points": [{"file": "F.mrk.json", "radius_mm": 2}]},
        coordinates=system,
    )
    hints = Hints.from_json(read_hints(path), TABLE, GRID)
    (liver,) = hints.segments
    assert (liver.roi.center_lps_mm, liver.roi.size_mm) == ((10, 8, 5), (8, 6, 4))
    np.testing.assert_allclose(liver.roi.axes, [(-0.8, -0.6, 0), (0.6, -0.8, 0), (0, 0, 1)])  # the columns
    assert liver.inside == (Point((10, 8, 5), 2), Point((11, 9, 5), 2))
    alone = hints_file(write, {}, outside={"file": "F.mrk.json"}, coordinates=system)
    assert Hints.from_json(read_hints(alone), TABLE, GRID).outside == (Point((10, 8, 5)), Point((11, 9, 5)))


def test_a_file_of_points_may_lie_outside(write):
    liver = Hints.from_json(read_hints(hints_file(write, {"points": [{"file": "F.mrk.json", "inside": False}]})), TABLE, GRID).segments[0]
    assert len(liver.outside) == 2 and not liver.inside


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", r"hints.json is not JSON, line 1"),
        ('{"hints_version": 1, "hints_version": 1}', "has the key 'hints_version' twice"),
        ('{"hints_version": 1, "segments": {"liver": {"volume_ml": [NaN, 1]}}}', "has NaN, which is no number"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_json_is_refused(write, text, words):
    with pytest.raises(InputError, match=words):
        read_hints(write("hints.json", text))


@pytest.mark.parametrize(
    ("liver", "words"),
    [
        ({"roi": {"file": "none.mrk.json"}}, "There is no file"),
        ({"roi": {"file": "F.mrk.json"}}, "liver, roi, F.mrk.json holds no ROI"),
        ({"roi": {"file": 7}}, "liver, roi, file must be a file's name, got 7"),
        ({"roi": {"file": "R.mrk.json", "size": [1, 1, 1]}}, "liver, roi names a file and has other keys"),
        ({"roi": {"file": "damaged.mrk.json"}}, "damaged.mrk.json is no markup as Slicer writes it"),
        ({"points": [{"file": "damaged-points.mrk.json"}]}, "liver, points, damaged-points.mrk.json is no markup"),
        ({"roi": {"file": "um.mrk.json"}}, "um.mrk.json is not in millimetres"),
        ({"roi": {"file": "list.mrk.json"}}, "list.mrk.json holds no ROI"),
    ],
)
def test_markups_that_cannot_be_taken_are_refused(write, liver, words):
    write("damaged.mrk.json", {"markups": [{"type": "ROI", "size": [1, 1, 1]}]})
    write("damaged-points.mrk.json", {"markups": [{"type": "Fiducial", "controlPoints": [{"id": "1"}]}]})
    write("um.mrk.json", {"markups": [{**ROI["markups"][0], "coordinateUnits": "um"}]})
    write("list.mrk.json", [ROI])
    with pytest.raises(InputError, match=words):
        read_hints(hints_file(write, liver))


def test_there_must_be_a_file_and_text_in_it(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        read_hints(tmp_path / "none.json")
    (tmp_path / "image.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_hints(tmp_path / "image.json")


@pytest.mark.parametrize("data", [[], 7, {"segments": []}, {"segments": {"liver": 3}, "hints_version": 1}, {"hints_version": 1, "outside": 3}])
def test_what_else_is_wrong_is_said_where_hints_are_understood(write, data):
    with pytest.raises(InputError, match="Hints: "):
        Hints.from_json(read_hints(write("hints.json", data)), TABLE, GRID)
