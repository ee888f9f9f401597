"""A place of the check: there and back, and what is none."""

import json

import pytest

from sparseseg.contract.errors import InputError
from sparseseg.contract.place import Place

SHAPE = (10, 12, 14)
PLACE = Place(0, 4, (slice(4, 5), slice(2, 6), slice(3, 9)), (5, 3, 4), "", "Segment_1", 20, 0.9, "Look at slice 4.")


def test_a_place_comes_back_as_it_was():
    assert Place.from_json(json.loads(json.dumps(PLACE.to_json())), SHAPE) == PLACE
    assert PLACE.centre_kji == (4, 3, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"axis": 3},
        {"index": 5},
        {"box": []},
        {"box": [[4, 5], [2, 6], [3, 99]]},
        {"centre_ijk": [9, 3, 4]},
        {"centre_ijk": [5, 3]},
        {"sureness": "high"},
        {"voxels": None},
    ],
)
def test_what_is_no_place_of_the_volume_is_refused(change):
    with pytest.raises(InputError, match="No place within 10 x 12 x 14 voxels"):
        Place.from_json({**PLACE.to_json(), **change}, SHAPE)


def test_a_place_that_lacks_a_part_is_refused():
    for name in PLACE.to_json():
        data = PLACE.to_json()
        del data[name]
        with pytest.raises(InputError, match="No place within"):
            Place.from_json(data, SHAPE)
