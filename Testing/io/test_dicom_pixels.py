"""The same pixels through each decoder that we may meet: one table of image attributes, exact. Slices differ in all of them."""

import itertools

import numpy as np
import pytest

import dicoms
from grids import AXIAL
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import dicompixels, read_volume
from sparseseg.io.decoder import Decoder

pydicom = dicoms.pydicom
SHAPE = (4, 12, 16)
GEOMETRY = Geometry(SHAPE, AXIAL.ijk_to_lps)
TRANSFERS = ("explicit", "big endian", "rle", "jpeg lossless", "jpeg-ls", "jpeg 2000")
TABLE = list(itertools.product(("MONOCHROME1", "MONOCHROME2"), ((8, 7), (8, 8), (16, 12), (16, 16)), (False, True)))


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


def stored_values(allocated, bits, signed, seed=0):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    stored = np.random.default_rng(seed).integers(low, high, SHAPE)
    stored[:, 0, :2] = low, high - 1
    return stored.astype(f"{'i' if signed else 'u'}{allocated // 8}")


def one(plane, k, meaning, allocated, bits, signed, slope=1, intercept=0):
    dataset = dicoms.make_slices(np.zeros(SHAPE, np.int16), GEOMETRY)[k]
    dataset.PhotometricInterpretation = meaning
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = allocated, bits, bits - 1, int(signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
    raw = plane.view(f"u{allocated // 8}") & (2**bits - 1)
    dataset.add_new("PixelData", "OB" if allocated == 8 else "OW", raw.astype(f"<u{allocated // 8}").tobytes())
    return dataset


@pytest.mark.parametrize("transfer", TRANSFERS)
@pytest.mark.parametrize(("meaning", "size", "signed"), TABLE)
def test_every_decoder_gives_the_stored_values(tmp_path, decoder, transfer, meaning, size, signed):
    if transfer == "big endian" and size[0] == 8:
        pytest.skip("the writer of these tests swaps words of 16 bits only")
    plane = stored_values(*size, signed)[0]
    path = tmp_path / "a.dcm"
    dicoms.save(one(plane, 0, meaning, *size, signed, slope=2, intercept=-7), path, transfer=transfer)
    data = pydicom.dcmread(path)
    exact = 0
    for name in ("pydicom", "gdcm"):
        try:
            found = dicompixels._stored(path, data, decoder, (name,))
        except InputError:
            assert (name, transfer) in {("pydicom", "jpeg lossless"), ("gdcm", "jpeg-ls"), ("gdcm", "rle")} or size == (8, 7)  # that it does not know
            continue
        assert np.array_equal(np.reshape(found, plane.shape), plane), name
        exact += 1
    assert exact


@pytest.mark.parametrize(("size", "signed"), [((16, 12), False), ((16, 16), True), ((8, 8), False)])
def test_slices_of_all_kinds_in_one_series(tmp_path, size, signed):
    """An archive's mixture: each slice with another compression, meaning of black, slope and intercept."""
    stored = stored_values(*size, signed, seed=1)
    meanings = ("MONOCHROME1", "MONOCHROME2", "MONOCHROME1", "MONOCHROME2")
    slopes, intercepts = (1, 2, 1, 3), (0, -1024, 5, 7)
    for k, transfer in enumerate(("explicit", "jpeg 2000", "rle", "jpeg lossless")):
        dataset = one(stored[k], k, meanings[k], *size, signed, slopes[k], intercepts[k])
        dicoms.save_slices([dataset], tmp_path / "série à", transfer=transfer)
    expected = stored.astype(int) * np.reshape(slopes, (4, 1, 1)) + np.reshape(intercepts, (4, 1, 1))
    assert np.array_equal(read_volume(tmp_path / "série à").array, expected)


@pytest.mark.parametrize("kind", ["FloatPixelData", "DoubleFloatPixelData"])
@pytest.mark.parametrize("transfer", ["explicit", "implicit"])
@pytest.mark.parametrize("factor", [1e-3, 0.05])
def test_floating_point_pixels_stay_so(tmp_path, kind, transfer, factor):
    values = stored_values(16, 16, True) * factor
    slices = dicoms.make_slices(np.zeros(SHAPE, np.int16), GEOMETRY)
    for dataset, plane in zip(slices, values, strict=True):
        for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"):
            delattr(dataset, name)
        dataset.BitsAllocated = 64 if "Double" in kind else 32
        setattr(dataset, kind, plane.astype("<f8" if "Double" in kind else "<f4").tobytes())
    dicoms.save_slices(slices, tmp_path / "s", transfer=transfer)
    assert np.array_equal(read_volume(tmp_path / "s").array, values.astype(np.float32))


@pytest.mark.parametrize("transfer", ["explicit", "rle"])
@pytest.mark.parametrize(("bits", "high", "signed"), [(12, 15, False), (12, 15, True), (10, 13, False), (12, 14, True)])
def test_stored_bits_that_end_elsewhere(tmp_path, transfer, bits, high, signed):
    stored = stored_values(16, bits, signed)
    slices = []
    for k, plane in enumerate(stored):
        dataset = one(plane, k, "MONOCHROME2", 16, bits, signed)
        dataset.HighBit = high
        dataset.PixelData = ((plane.view(np.uint16) & (2**bits - 1)) << (high + 1 - bits)).astype("<u2").tobytes()
        slices.append(dataset)
    dicoms.save_slices(slices, tmp_path / "s", transfer=transfer)
    assert np.array_equal(read_volume(tmp_path / "s").array, stored)


def test_stored_bits_that_end_elsewhere_are_refused_where_a_decoder_would_guess(tmp_path):
    stored = stored_values(16, 12, False)
    slices = [one(plane, k, "MONOCHROME2", 16, 12, False) for k, plane in enumerate(stored)]
    files = dicoms.save_slices(slices, tmp_path / "s", transfer="jpeg 2000")
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.HighBit = 15
        dataset.save_as(file)
    with pytest.raises(InputError, match=r"highest bit \(15\) not where its 12 stored bits end"):
        read_volume(tmp_path / "s")


def test_the_copy_that_is_decoded_names_nobody(tmp_path, monkeypatch):
    plane = stored_values(16, 16, True)[0]
    dicoms.save(one(plane, 0, "MONOCHROME1", 16, 16, True), tmp_path / "a.dcm", transfer="jpeg lossless")
    seen = []
    real = Decoder._ask
    monkeypatch.setattr(Decoder, "_ask", lambda self, line: (seen.append((self._folder.path / "pixels.dcm").read_bytes()), real(self, line))[1])
    with Decoder() as decoder:
        dicompixels.read_pixels(tmp_path / "a.dcm", decoder)
    assert seen
    assert all(dicoms.ID.encode("latin-1") not in raw and b"rgen" not in raw for raw in seen)
