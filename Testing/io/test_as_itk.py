"""NRRD and MetaImage headers of all kinds: the same voxels on the same grid as ITK reads, and so as Slicer shows them."""

import gzip
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import files, metaimage, nrrd

SHAPE = (5, 4, 3)  # k, j, i
VOXELS = np.random.default_rng(0).integers(-120, 120, SHAPE).astype("<i2")
PACKED = zlib.compress(VOXELS.tobytes())
SPACE = {"space": "left-posterior-superior", "space directions": "(0.8,0.1,0) (0,0,-1.5) (0,2,0)", "space origin": "(10,-20,30.5)"}


def of_itk(path, io):
    reader = sitk.ImageFileReader()
    reader.SetImageIO(io)
    reader.SetFileName(str(path))
    image = reader.Execute()
    image = image[:, :, :, 0] if image.GetDimension() == 4 else image
    return sitk.GetArrayFromImage(image), Geometry.from_axes(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def check(path, io, ours):
    array, grid = of_itk(path, io)
    found, lies = ours(path)
    assert found.shape[:3] == grid.shape_kji
    assert found.dtype == array.dtype
    assert np.array_equal(found.reshape(array.shape), array)
    assert lies.shape_kji == grid.shape_kji
    np.testing.assert_allclose(lies.matrix, grid.matrix, atol=1e-9)


def nrrd_file(path, content=None, beside=None, lines=(), **fields):
    content = VOXELS.tobytes() if content is None else content
    known = {"type": "short", "dimension": "3", "sizes": "3 4 5", "endian": "little", "encoding": "raw"}
    header = {**known, **{key.replace("_", " "): value for key, value in fields.items()}}
    text = ["NRRD0005", "# by hand", *(f"{key}: {value}" for key, value in header.items() if value is not None), "a key:=a value", *lines]
    if beside is not None:
        path = path.with_suffix(".nhdr")
        for name, part in beside.items():
            (path.parent / name).write_bytes(part)
        path.write_text("\n".join(text) + "\n")
    else:
        path.write_bytes("\n".join([*text, "", ""]).encode() + content)
    return path


NRRDS = {
    "no space": {},
    "spacings": {"spacings": "0.5 1.5 2"},
    "a spacing of nan": {"spacings": "0.5 nan 2"},
    "mins and spacings": {"spacings": "0.5 1.5 2", "axis mins": "1 2 3"},
    "mins and maxs": {"axis mins": "1 2 3", "axis maxs": "4 10 9"},
    "centers": {"axis mins": "1 2 3", "axis maxs": "4 10 9", "centers": "node cell ???"},
    "lps": SPACE,
    "ras": SPACE | {"space": "RAS"},
    "las": SPACE | {"space": "left-anterior-superior"},
    "scanner": SPACE | {"space": "scanner-xyz"},
    "space dimension": {"space dimension": "3"} | {key: value for key, value in SPACE.items() if key != "space"},
    "no origin": {key: value for key, value in SPACE.items() if key != "space origin"},
    "kinds": SPACE | {"kinds": "domain space ???"},
    "capitals": {"SPACE": "Left-Posterior-Superior", "Space Directions": SPACE["space directions"]},
    "big": {"endian": "big", "content": VOXELS.astype(">i2").tobytes()},
    "bytes without order": {"type": "signed char", "endian": None, "content": VOXELS.astype("i1").tobytes()},
    "unsigned": {"type": "unsigned short int", "content": abs(VOXELS).astype("<u2").tobytes()},
    "float": {"type": "float", "content": (VOXELS / 7).astype("<f4").tobytes()},
    "double": {"type": "double", "content": (VOXELS / 7).astype("<f8").tobytes()},
    "long": {"type": "long long int", "content": VOXELS.astype("<i8").tobytes()},
    "gzip": {"encoding": "gzip", "content": gzip.compress(VOXELS.tobytes())},
    "text": {"encoding": "ascii", "content": " ".join(map(str, VOXELS.ravel())).encode() + b"\n"},
    "text of floats": {"type": "float", "encoding": "text", "content": "\n".join(map(str, (VOXELS / 8).ravel())).encode()},
    "hex": {"encoding": "hex", "content": VOXELS.tobytes().hex(" ", 8).encode()},
    "lines skipped": {"line skip": "2", "content": b"one\ntwo\n" + VOXELS.tobytes()},
    "bytes skipped": {"byte skip": "7", "content": b"1234567" + VOXELS.tobytes()},
    "bytes at the end": {"byte skip": "-1", "content": b"1234567" + VOXELS.tobytes()},
    "beside": {"data file": "v.raw", "beside": {"v.raw": VOXELS.tobytes()}},
    "beside, packed": {"data file": "v.gz", "encoding": "gz", "beside": {"v.gz": gzip.compress(VOXELS.tobytes())}},
    "many beside": {"data file": "v%02d.raw 1 5 1", "beside": {f"v{n + 1:02d}.raw": slab.tobytes() for n, slab in enumerate(VOXELS)}},
    "many backwards": {"data file": "v%d.raw 5 1 -1", "beside": {f"v{5 - n}.raw": slab.tobytes() for n, slab in enumerate(VOXELS)}},
    "listed": {"lines": ["data file: LIST", *"abcde"], "beside": {name: slab.tobytes() for name, slab in zip("abcde", VOXELS, strict=True)}},
    "four": {"dimension": "4", "sizes": "3 4 5 1", "spacings": "0.5 1.5 2 1"},
}


@pytest.mark.parametrize("name", NRRDS)
def test_nrrd(tmp_path, name):
    check(nrrd_file(tmp_path / "a.nrrd", **NRRDS[name]), "NrrdImageIO", nrrd.read)


@pytest.mark.parametrize("kinds", ["list domain domain domain", "domain domain domain vector", "domain list domain domain"])
def test_nrrd_in_layers(tmp_path, kinds):
    sizes = [3, 4, 5]
    sizes.insert(next(n for n, kind in enumerate(kinds.split()) if kind != "domain"), 2)
    content = np.random.default_rng(1).integers(0, 255, 120).astype("u1").tobytes()
    path = nrrd_file(tmp_path / "a.nrrd", content, type="uchar", dimension="4", sizes=" ".join(map(str, sizes)), kinds=kinds, endian=None)
    check(path, "NrrdImageIO", lambda path: nrrd.read(path, layered=True))
    with pytest.raises(InputError, match="2 values in each voxel"):
        nrrd.read(path)


def meta_file(path, content=None, beside=None, lines=(), **fields):
    content = VOXELS.tobytes() if content is None else content
    known = {"ObjectType": "Image", "NDims": "3", "BinaryData": "True", "DimSize": "3 4 5", "ElementType": "MET_SHORT"}
    last = {"ElementDataFile": fields.pop("ElementDataFile", "LOCAL")}
    header = "".join(f"{key} = {value}\n" for key, value in {**known, **fields, **last}.items() if value is not None)
    for name, part in (beside or {}).items():
        (path.parent / name).write_bytes(part)
    path.write_bytes(header.encode() + "".join(f"{line}\n" for line in lines).encode() + (b"" if beside else content))
    return path


TURN = "0.6 0.8 0 0 0 -1 -0.8 0.6 0"
METAS = {
    "plain": {},
    "spacing": {"ElementSpacing": "0.5 1.5 2"},
    "size": {"ElementSize": "0.5 1.5 2"},
    "both": {"ElementSize": "9 9 9", "ElementSpacing": "0.5 1.5 2"},
    "turned": {"ElementSpacing": "0.5 1.5 2", "TransformMatrix": TURN, "Offset": "1 2 3.5", "CenterOfRotation": "5 5 5"},
    "other names": {"Rotation": TURN, "Position": "1 2 3.5", "AnatomicalOrientation": "LPS"},
    "older names": {"Orientation": TURN, "Origin": "1 2 3.5"},
    "centimetres": {"ElementSpacing": "0.5 1.5 2", "Offset": "1 2 3.5", "DistanceUnits": "cm"},
    "big": {"ElementByteOrderMSB": "True", "content": VOXELS.astype(">i2").tobytes()},
    "big by its other name": {"BinaryDataByteOrderMSB": "True", "content": VOXELS.astype(">i2").tobytes()},
    "packed": {"CompressedData": "True", "CompressedDataSize": str(len(PACKED)), "content": PACKED},
    "text": {"BinaryData": "False", "content": " ".join(map(str, VOXELS.ravel())).encode() + b"\n"},
    "double": {"ElementType": "MET_DOUBLE", "content": (VOXELS / 7).astype("<f8").tobytes()},
    "unsigned": {"ElementType": "MET_UCHAR", "content": abs(VOXELS).astype("u1").tobytes()},
    "long": {"ElementType": "MET_LONG_LONG", "content": VOXELS.astype("<i8").tobytes()},
    "older long": {"ElementType": "MET_LONG", "content": VOXELS.astype("<i4").tobytes()},
    "beside": {"ElementDataFile": "v.raw", "beside": {"v.raw": VOXELS.tobytes()}},
    "beside, packed": {"ElementDataFile": "v.zraw", "CompressedData": "True", "beside": {"v.zraw": PACKED}},
    "after a header": {"ElementDataFile": "v.raw", "HeaderSize": "7", "beside": {"v.raw": b"1234567" + VOXELS.tobytes()}},
    "at the end": {"ElementDataFile": "v.raw", "HeaderSize": "-1", "beside": {"v.raw": b"1234567" + VOXELS.tobytes()}},
    "many beside": {"ElementDataFile": "v%02d.raw 1 5 1", "beside": {f"v{n + 1:02d}.raw": slab.tobytes() for n, slab in enumerate(VOXELS)}},
    "listed": {"ElementDataFile": "LIST", "lines": "abcde", "beside": {name: slab.tobytes() for name, slab in zip("abcde", VOXELS, strict=True)}},
    "four": {"NDims": "4", "DimSize": "3 4 5 1", "ElementSpacing": "0.5 1.5 2 1"},
}


@pytest.mark.parametrize("name", METAS)
def test_metaimage(tmp_path, name):
    check(meta_file(tmp_path / "a.mha", **METAS[name]), "MetaImageIO", metaimage.read)


def test_metaimage_without_the_size_of_what_is_packed(tmp_path):
    """Here ITK gives numbers that are nowhere in the file."""
    assert np.array_equal(metaimage.read(meta_file(tmp_path / "a.mha", PACKED, CompressedData="True"))[0], VOXELS)


def test_the_door_takes_them_too(tmp_path):
    assert np.array_equal(files.read_volume(nrrd_file(tmp_path / "a.nrrd", **NRRDS["listed"])).array, VOXELS)
    assert np.array_equal(files.read_volume(meta_file(tmp_path / "a.mha", **METAS["listed"])).array, VOXELS)
