"""Files and label maps in packed pieces: there and back the same, short, and nothing of a damaged or hostile piece is taken."""

import gzip
import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from sparseseg.contract.box import whole
from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.frames import PIECE_BYTES, Arriving, apply_changes, changed, changes, checked_name, parts
from sparseseg.contract.link import Frame
from sparseseg.contract.protocol import ProtocolError


def sent(content, folder, unit=1):
    arriving, found = Arriving(), None
    for frame in parts(io.BytesIO(content), "image.npy", unit):
        assert found is None
        found = arriving.part(frame, folder)
    return found.read_bytes()


@pytest.mark.parametrize("unit", [1, 2, 4])
@pytest.mark.parametrize("size", [0, 1, 7, PIECE_BYTES, PIECE_BYTES + 3, 2 * PIECE_BYTES + 1])
def test_files_arrive_as_they_were(tmp_path, size, unit):
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    assert sent(content, tmp_path, unit) == content
    assert [path.name for path in tmp_path.iterdir()] == ["image.npy"]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_a_volume_is_no_longer_than_by_gzip(tmp_path, dtype, smooth):
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 3, 300_000)
    values = np.cumsum(steps) if smooth else 100 + 15 * steps
    content = np.round(values).astype(dtype).tobytes()
    frames = list(parts(io.BytesIO(content), "image.npy", np.dtype(dtype).itemsize))
    assert sum(len(frame.encode()) for frame in frames) < 1.02 * len(gzip.compress(content))
    assert sent(content, tmp_path, np.dtype(dtype).itemsize) == content


def test_pieces_that_do_not_fit_leave_nothing(tmp_path):
    first, second = list(parts(io.BytesIO(bytes(PIECE_BYTES + 1)), "model.pt"))
    arriving = Arriving()
    for frame in (
        second,  # without the first
        replace(first, data=first.data[:-9]),
        replace(first, data=b"x"),
        replace(first, data=zlib.compress(bytes(1 << 26))),  # more than it says
        replace(first, fields={**first.fields, "raw": 1}),
        replace(first, fields={**first.fields, "raw": 1 << 40}),
        replace(first, fields={**first.fields, "size": 3}),
        replace(first, fields={**first.fields, "unit": 3}),
        replace(first, fields={**first.fields, "packing": "other"}),
        replace(first, fields={**first.fields, "name": "../model.pt"}),
    ):
        with pytest.raises(ProtocolError):
            arriving.part(frame, tmp_path)
    arriving.abandon()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "C:a", "a\0", "con.", "ä.npy", "a" * 200, "host.lock\n"])
def test_only_plain_names_are_taken(name):
    with pytest.raises(ProtocolError):
        checked_name(name)


def test_label_maps_become_what_they_are_there():
    rng = np.random.default_rng(0)
    shape = (40, 200, 300)
    there, here = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for density in (2, 2, 2, 200, 200, 200):
        low = [int(rng.integers(0, n - 1)) for n in shape]
        box = tuple(slice(a, int(rng.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True))
        values = rng.integers(0, 3, [s.stop - s.start for s in box], np.uint8) * (rng.integers(0, density, there[box].shape) == 0)
        for frame in changes(there, values, box):
            apply_changes(here, Frame(frame.kind, json.loads(json.dumps(frame.fields)), frame.data))
        np.testing.assert_array_equal(there[box], values)
        np.testing.assert_array_equal(here, there)
    assert not list(changes(there, there.copy(), whole(shape)))


def test_a_small_change_is_short():
    shape = (100, 512, 512)
    there = np.zeros(shape, np.uint8)
    after = there.copy()
    after[10, 100:105, 200:260] = 1
    after[90, 400, 400] = 2
    assert changed(there, after) == (slice(10, 91), slice(100, 401), slice(200, 401))
    assert sum(len(frame.encode()) for frame in changes(there, after, whole(shape))) < 500


@pytest.mark.parametrize(
    ("box", "data"),
    [
        ([[0, 2], [0, 3], [0, 5]], zlib.compress(bytes(24))),  # outside
        ([], zlib.compress(bytes(24))),
        (None, zlib.compress(bytes(24))),
        ([[0, 2], [0, 3], [0, 4]], zlib.compress(bytes(23))),
        ([[0, 2], [0, 3], [0, 4]], zlib.compress(bytes(25))),
        ([[0, 2], [0, 3], [0, 4]], b"x"),
    ],
)
def test_damaged_changes_are_refused(box, data):
    shown = np.zeros((2, 3, 4), np.uint8)
    with pytest.raises(SparseSegError):
        apply_changes(shown, Frame("labels", {"box": box, "packing": "plain"}, data))
    assert not shown.any()


@pytest.mark.parametrize("steps", [[0, 24], [24, 1], [2**32 - 1, 2**32 - 1], [1], [1, 2, 3]])
def test_changes_beyond_their_box_are_refused(steps):
    shown = np.zeros((2, 3, 4), np.uint8)
    data = np.array(steps, "<u4").view(np.uint8).reshape(-1, 4).T.tobytes() + bytes([1] * len(steps))
    fields = {"box": [[0, 2], [0, 3], [0, 4]], "packing": "gaps", "changed": 2}
    with pytest.raises(SparseSegError):
        apply_changes(shown, Frame("labels", fields, zlib.compress(data)))
    assert not shown.any()
