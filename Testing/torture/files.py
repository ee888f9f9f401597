"""Hostile image files: small honest files of each format, changed by a seed, and what becomes of them.

Each format is a function that takes an empty folder and gives an attempt: with random numbers it makes a file and reads it. It may be read, or be
refused by a SparseSegError; any other exception is a fault, and so is what ends the process, hangs, or takes much more memory than the honest
file (fuzz.py).
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

import dicoms
from phantoms import two_organs
from sparseseg import io
from sparseseg.contract.hints import Hints

from .mutate import cut, flip, span, without

Attempt = Callable[[random.Random], None]
SHAPE_KJI = (4, 8, 6)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_INTEGERS = (
    b"0 -1 1 2 3 4 5 16 255 256 300 1000 65535 65536 99999 2147483647 2147483648 -2147483649 4294967296 9223372036854775807 9223372036854775808"
)
_NUMBERS = [*_INTEGERS.split(), *b"18446744073709551616 1e308 1e999 1e-320 -0.0 nan inf 0x10 1_000".split(), b"", b"9" * 400]
_PIECES = [b"\n", b"\0", b"\xff\xfe", b"\xc3", b" ", b": ", b"\r\n", *b"= := ( ) none %d %9999999d .. /dev/zero LIST".split()]
_TOKENS = b"raw gzip ascii hex bzip2 big little True False LOCAL list domain complex double MET_DOUBLE".split()


# ---------------------------------------------------------------- how bytes are changed


def changed(content: bytes, rng: random.Random) -> bytes:
    """With one to six faults; in what is packed within, too."""
    if rng.random() < 0.3 and (inner := _repacked(content, rng)) is not None:
        return inner
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        content = rng.choice(_FAULTS)(content, rng)
    return content


def _repacked(content: bytes, rng: random.Random) -> bytes | None:
    """Changed within: as packed again, of the wrong size, many times as large, in two members, or cut."""
    for mark, unpack, pack in ((b"\x1f\x8b\x08", gzip.decompress, gzip.compress), (b"\x78\x9c", zlib.decompress, zlib.compress)):
        at = content.find(mark)
        if at < 0:
            continue
        try:
            inner = unpack(content[at:])
        except (OSError, EOFError, zlib.error):
            continue
        kind = rng.randrange(5)
        if kind == 0:
            inner = changed(inner, rng)
        elif kind == 1:
            inner = inner[: rng.randrange(len(inner))]
        elif kind == 2:
            inner += bytes(rng.choice((1, 1000, 10_000_000)))
        elif kind == 3:
            return content[:at] + pack(inner) + pack(inner)
        return content[:at] + pack(inner) + rng.choice((b"", b"\0" * 9, b"x"))
    return None


def _early(content: bytes, rng: random.Random) -> bytes:
    """Bytes among the first, where headers are: a number's, often."""
    out = bytearray(content or b"\0")
    at, width = rng.randrange(min(len(out), 1200)), rng.choice((1, 2, 4, 8))
    value = rng.choice((0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, rng.getrandbits(64)))
    out[at : at + width] = (value % 256**width).to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]
    return bytes(out)


def _again(content: bytes, rng: random.Random) -> bytes:
    first, last = span(content, rng)
    return content[:last] + content[first:last] * rng.choice((1, 1, 20, 2000)) + content[last:]


def _between(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice((*_PIECES, *_TOKENS, rng.randbytes(rng.randrange(1, 20)))) + content[at:]


def _number(content: bytes, rng: random.Random) -> bytes:
    """One number in text is another, to the extremes."""
    found = list(_NUMBER.finditer(content[:6000]))
    if not found:
        return _early(content, rng)
    at = rng.choice(found)
    return content[: at.start()] + rng.choice(_NUMBERS) + content[at.end() :]


def _word(content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(rb"[A-Za-z]{2,}", content[:6000]))
    if not found:
        return flip(content, rng)
    at = rng.choice(found)
    return content[: at.start()] + rng.choice((*_TOKENS, b"x" * rng.choice((1, 300, 100_000)), rng.choice(found)[0])) + content[at.end() :]


def _line(content: bytes, rng: random.Random) -> bytes:
    """A line of the header gone, twice, many times, or elsewhere."""
    lines = content[:6000].split(b"\n")
    at, kind = rng.randrange(len(lines)), rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif kind == 2:
        lines[at:at] = [lines[at]] * rng.choice((2, 100, 5000))
    else:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    return b"\n".join(lines) + content[6000:]


_FAULTS = (flip, _early, _early, _early, cut, without, _again, _between, _number, _number, _number, _word, _line, _line)


# ---------------------------------------------------------------- formats


def nrrd(folder: Path) -> Attempt:
    return _read_as_image(folder, _honest(folder, ".nrrd"), ".nrrd")


def metaimage(folder: Path) -> Attempt:
    return _read_as_image(folder, _honest(folder, ".mha"), ".mha")


def nifti(folder: Path) -> Attempt:
    return _read_as_image(folder, [*_honest(folder, ".nii"), *_honest(folder, ".nii.gz")], ".nii")


def npy(folder: Path) -> Attempt:
    """Rows or columns first, of several types, and one with objects."""
    image = two_organs(SHAPE_KJI).image
    contents = []
    for array in (image, np.asfortranarray(image), image.astype(">f8"), image > 0, image.astype(object)):
        np.save(folder / "honest.npy", array)
        contents.append((folder / "honest.npy").read_bytes())
    return _read_as_image(folder, contents, ".npy", io.Taking((1.0,)))


def tiff(folder: Path) -> Attempt:
    """Another process decodes, which takes longer."""
    import tifffile

    image = two_organs(SHAPE_KJI).image
    contents = []
    for options in ({}, {"compression": "zlib"}, {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2, "unit": "um"}}, {"ome": True}):
        tifffile.imwrite(folder / "honest.tif", image.astype("u2"), photometric="minisblack", **options)
        contents.append((folder / "honest.tif").read_bytes())
    return _read_as_image(folder, contents, ".tif", io.Taking((1.0,)))


def zarr(folder: Path) -> Attempt:
    """OME-Zarr of which one file, a chunk or what says what it is, is hostile; another process decodes."""
    phantom = two_organs(SHAPE_KJI)
    io.write_segmentation(folder / "a.zarr", phantom.truth, phantom.geometry, phantom.classes)
    contents = {path: path.read_bytes() for path in sorted((folder / "a.zarr").rglob("*")) if path.is_file()}

    def attempt(rng: random.Random) -> None:
        path = rng.choice(list(contents))
        path.write_bytes(changed(contents[path], rng))
        try:
            io.read_volume(folder / "a.zarr")
        finally:
            path.write_bytes(contents[path])

    return attempt


def _honest(folder: Path, suffix: str) -> list[bytes]:
    """Files of a format: as written, not packed, of other types, as text; and a header with its voxels beside."""
    import SimpleITK as sitk

    image = two_organs(SHAPE_KJI).image
    found = []
    for packed, kind in ((True, "i2"), (False, "i2"), (False, "f8"), (False, "i8"), (True, "u1")):
        path = folder / f"honest{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray((image % 100).astype(kind)), str(path), packed)
        found.append(path.read_bytes())
    (folder / "v.raw").write_bytes(image.tobytes())
    for k, plane in enumerate(image):
        (folder / f"v{k}.raw").write_bytes(plane.tobytes())
    numbers = " ".join(map(str, image.ravel())).encode()
    if suffix == ".nrrd":
        head = b"NRRD0005\ntype: short\ndimension: 3\nspace: RAS\nsizes: 6 8 4\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little\n"
        found += [head + b"encoding: text\n\n" + numbers, head + b"encoding: hex\n\n" + image.tobytes().hex().encode()]
        found += [head + b"data file: v.raw\n", head + b"data file: v%d.raw 0 3 1\n", head + b"data file: LIST\nv0.raw\nv1.raw\nv2.raw\nv3.raw\n"]
    if suffix == ".mha":
        head = b"ObjectType = Image\nNDims = 3\nDimSize = 6 8 4\nElementSpacing = 1 1 2\nElementType = MET_SHORT\n"
        found += [b"%sElementDataFile = %s\n" % (head, of) for of in (b"v.raw", b"v%d.raw 0 3 1", b"LIST\nv0.raw\nv1.raw\nv2.raw\nv3.raw")]
        found.append(head + b"BinaryData = False\nElementDataFile = LOCAL\n" + numbers)
    return found


def _read_as_image(folder: Path, contents: list[bytes], suffix: str, taking: io.Taking | None = None) -> Attempt:
    grid = two_organs(SHAPE_KJI).geometry
    path = folder / f"a{suffix}"

    def attempt(rng: random.Random) -> None:
        path.write_bytes(changed(rng.choice(contents), rng))
        if rng.random() < 0.3:
            io.read_annotation(path, grid)
        else:
            io.read_volume(path, taking=taking or io.Taking())

    return attempt


def segmentation(folder: Path) -> Attempt:
    """A .seg.nrrd, of one layer and of two."""
    phantom = two_organs(SHAPE_KJI)
    path = folder / "a.seg.nrrd"
    io.write_annotation(path, phantom.annotation, phantom.geometry, phantom.classes)
    whole = path.read_bytes()
    head = whole.split(b"\n\n", 1)[0]
    layers = np.stack([phantom.annotation, phantom.annotation % 2], -1).tobytes()
    double = head.replace(b"dimension: 3", b"dimension: 4").replace(b"sizes: ", b"sizes: 2 ").replace(b"kinds: ", b"kinds: list ")
    double = double.replace(b"space directions: ", b"space directions: none ").replace(b"Segment1_Layer:=0", b"Segment1_Layer:=1")
    contents = [whole, double + b"\n\n" + gzip.compress(layers)]

    def attempt(rng: random.Random) -> None:
        path.write_bytes(changed(rng.choice(contents), rng))
        io.read_annotation(path, phantom.geometry)

    return attempt


def series(folder: Path) -> Attempt:
    """A DICOM series of which one file is hostile: plain, deflated, implicit."""
    return _series(folder, ("explicit", "implicit", "deflated", "big endian"))


def compressed_series(folder: Path) -> Attempt:
    """The same, compressed: another process decodes, which takes longer."""
    return _series(folder, ("rle", "jpeg lossless", "jpeg-ls", "jpeg 2000"))


def _series(folder: Path, transfers: tuple[str, ...]) -> Attempt:
    phantom = two_organs((3, 12, 16))  # the least that JPEG 2000 is written in
    made: dict[str, list[bytes]] = {}
    for transfer in transfers:
        files = dicoms.write_series(folder / "made", phantom.image, phantom.geometry, transfer=transfer)
        made[transfer] = [path.read_bytes() for path in files]
        shutil.rmtree(folder / "made")
    place = folder / "series"
    place.mkdir()

    def attempt(rng: random.Random) -> None:
        contents = list(made[rng.choice(list(made))])
        at = rng.randrange(len(contents))
        contents[at] = _changed_dicom(contents[at], rng)
        for k, content in enumerate(contents):
            (place / f"{k}.dcm").write_bytes(content)
        io.read_volume(place)

    return attempt


def _changed_dicom(content: bytes, rng: random.Random) -> bytes:
    """Also in a deflated file's inside; half of the time in the pixels or the elements before them, where they tell most."""
    at = content.find(b"1.2.840.10008.1.2.1.99")
    if at > 0 and rng.random() < 0.7:
        start = 144 + int.from_bytes(content[140:144], "little")
        with contextlib.suppress(zlib.error):
            inner = _changed_dicom(zlib.decompress(content[start:], -15), rng) + bytes(rng.choice((0, 0, 10_000_000)))
            packer = zlib.compressobj(wbits=-15)
            return content[:start] + packer.compress(inner) + packer.flush()
    last = content.rfind(b"\xe0\x7f\x10\x00")
    if last > 0 and rng.random() < 0.5:
        first = max(0, last - 300)
        return content[:first] + changed(content[first:], rng)
    return changed(content, rng)


def dicom_segmentation(folder: Path) -> Attempt:
    return _results(folder, ("seg", "labelmap", "fractional"))


def structures(folder: Path) -> Attempt:
    return _results(folder, ("rtstruct",))


def _results(folder: Path, kinds: tuple[str, ...]) -> Attempt:
    phantom = two_organs(SHAPE_KJI)
    dicoms.write_series(folder / "images", phantom.image, phantom.geometry)
    image = io.read_volume(folder / "images")
    path = folder / "a.dcm"
    contents = []
    for kind in kinds:
        labels = np.flip(phantom.truth, 0).copy() if image.geometry.difference_from(phantom.geometry) else phantom.truth
        io.write_dicom(path, kind, io.Dense(labels, phantom.classes, np.full(labels.shape, 9, np.uint8)), image.series)
        contents.append(path.read_bytes())

    def attempt(rng: random.Random) -> None:
        path.write_bytes(_changed_dicom(rng.choice(contents), rng))
        io.read_annotation(path, image.geometry, series=image.series)

    return attempt


_HINTS = {
    "hints_version": 1,
    "coordinates": "LPS",
    "segments": {
        "bright": {
            "roi": {"file": "R.mrk.json"},
            "points": [[-17, 14, 8], {"at": [-18, 15, 8], "inside": False, "radius_mm": 0.5}],
            "one_piece": True,
        },
        "dark": {"points": {"file": "F.mrk.json"}, "no_holes": True, "volume_ml": [None, 5], "apart_from": ["bright"]},
    },
}
_MARKUPS = {
    "R.mrk.json": {
        "markups": [
            {"type": "ROI", "coordinateSystem": "LPS", "center": [-17, 14, 8], "size": [8, 10, 9], "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
        ]
    },
    "F.mrk.json": {
        "markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [{"position": [-16, 13, 7], "positionStatus": "defined"}]}]
    },
}


def markups(folder: Path) -> Attempt:
    """A hints file, or a Markups file that it names."""
    phantom = two_organs(SHAPE_KJI)
    contents = {name: json.dumps(data).encode() for name, data in {"hints.json": _HINTS, **_MARKUPS}.items()}

    def attempt(rng: random.Random) -> None:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        name = rng.choice(list(contents))
        (folder / name).write_bytes(changed(contents[name], rng))
        Hints.from_json(io.read_hints(folder / "hints.json"), phantom.classes, phantom.geometry)

    return attempt


FORMATS: dict[str, Callable[[Path], Attempt]] = {
    made.__name__: made
    for made in (nrrd, segmentation, metaimage, nifti, npy, tiff, zarr, series, compressed_series, dicom_segmentation, structures, markups)
}
