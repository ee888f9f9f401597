"""TIFF, Zarr and .npy: as their libraries write them, with the spacing that they say; what is not said is asked for; hostile ones are sentences."""

import json
import sys

import numpy as np
import pytest

from phantoms import two_organs
from sparseseg import io
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError, OutputError, PackageError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.store import OnDisk
from sparseseg.io import stacks
from sparseseg.io.stacks import Taking

PHANTOM = two_organs((7, 24, 20))
IMAGE, TRUTH, GRID = PHANTOM.image, PHANTOM.truth, PHANTOM.geometry
SAID = Geometry.from_axes(IMAGE.shape, (0.01, 0.02, 0.05))
ASKS = r"does not say how large its voxels are\. Give that in mm: --spacing"


@pytest.fixture
def tifffile():
    return pytest.importorskip("tifffile", reason="the extra `large` is not installed")


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr", reason="the extra `large` is not installed")


def read(path, said=None, **select):
    return io.read_volume(path, taking=Taking(said or (), select))


def assert_read(path, geometry, said=None, image=IMAGE, **select):
    volume = read(path, said, **select)
    np.testing.assert_array_equal(volume.array, image)
    assert not volume.geometry.difference_from(geometry)


# ---------------------------------------------------------------- TIFF


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_ome_tiff_says_its_spacing(tmp_path, tifffile, compression, order):
    if compression == "lzw":
        pytest.importorskip("imagecodecs", reason="the extra `large` is not installed")
    sizes = {"PhysicalSizeX": 10.0, "PhysicalSizeY": 20.0, "PhysicalSizeZ": 0.05, "PhysicalSizeZUnit": "mm"}  # micrometres where nothing is said
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", byteorder=order) as file:
        file.write(IMAGE, metadata={"axes": "ZYX", **sizes}, compression=compression)
    assert_read(tmp_path / "a.ome.tif", SAID)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_imagej_says_its_spacing(tmp_path, tifffile, compression):
    metadata = {"axes": "ZYX", "spacing": 50.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", IMAGE.astype("u2"), imagej=True, resolution=(1 / 10, 1 / 20), metadata=metadata, compression=compression)
    assert_read(tmp_path / "a.tif", SAID, image=IMAGE.astype("u2"))


def test_a_stack_without_spacing_asks_for_it(tmp_path, tifffile):
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack", metadata=None)
    with pytest.raises(InputError, match=ASKS):
        read(tmp_path / "a.tif")
    assert_read(tmp_path / "a.tif", SAID, (0.01, 0.02, 0.05))
    assert_read(tmp_path / "a.tif", Geometry.from_axes(IMAGE.shape, (0.3, 0.3, 0.3)), (0.3,))


def test_a_folder_of_numbered_slices_is_one_volume_in_the_numbers_order(tmp_path, tifffile):
    (tmp_path / "scan").mkdir()
    for n, plane in enumerate(IMAGE):
        tifffile.imwrite(tmp_path / "scan" / f"rec_{8 + n}.tif", plane)  # 8, 9, 10: not the order of names
    assert_read(tmp_path / "scan", SAID, (0.01, 0.02, 0.05))
    (tmp_path / "scan" / "rec_11.tif").unlink()
    with pytest.raises(InputError, match=r"A slice is missing in scan after rec_10\.tif"):
        read(tmp_path / "scan", (1,))
    tifffile.imwrite(tmp_path / "scan" / "rec_11.tif", IMAGE[3, 1:])
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "scan", (1,))
    tifffile.imwrite(tmp_path / "scan" / "other_11.tif", IMAGE[3])
    with pytest.raises(InputError, match="slices of several names"):
        read(tmp_path / "scan", (1,))


def test_of_several_channels_and_time_points_one_is_chosen(tmp_path, tifffile):
    every = np.stack([np.stack([IMAGE + 1000 * t + 100 * c for c in range(3)], 1) for t in range(2)]).astype(np.int16)
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("XYZ", (10.0, 20.0, 50.0), strict=True)}
    tifffile.imwrite(tmp_path / "a.ome.tif", every, metadata={"axes": "TZCYX", **sizes}, photometric="minisblack")
    with pytest.raises(InputError, match=r"holds 2 time points\. Choose one, counted from 0: --select t=0"):
        read(tmp_path / "a.ome.tif")
    with pytest.raises(InputError, match="holds 3 channels"):
        read(tmp_path / "a.ome.tif", t=1)
    with pytest.raises(InputError, match="has no c=3: it holds 3"):
        read(tmp_path / "a.ome.tif", t=1, c=3)
    assert_read(tmp_path / "a.ome.tif", SAID, image=IMAGE + 1200, t=1, c=2)


def test_colour_and_single_slices_are_refused(tmp_path, tifffile):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((7, 24, 20, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="several values in each voxel"):
        read(tmp_path / "a.tif", (1,))
    tifffile.imwrite(tmp_path / "b.tif", IMAGE[0])
    with pytest.raises(InputError, match="not a stack of slices"):
        read(tmp_path / "b.tif", (1,))


# ---------------------------------------------------------------- Zarr

UM = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]


def write_ome(zarr, path, version, array=IMAGE, axes=UM, scale=(50, 20, 10), more=()):
    """Two levels, the second half as large."""
    levels = []
    group = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    for n in range(2):
        values = array[..., :: 1 + n, :: 1 + n, :: 1 + n]
        group.create_array(f"s{n}", shape=values.shape, dtype=values.dtype, chunks=(1,) * (values.ndim - 3) + (3, 16, 8))[...] = values
        steps = [{"type": "scale", "scale": [*scale[:-3], *(v * (1 + n) for v in scale[-3:])]}, *more]
        levels.append({"path": f"s{n}", "coordinateTransformations": steps})
    scales = [{"axes": axes, "datasets": levels, "version": version}]
    group.attrs.update({"multiscales": scales} if version == "0.4" else {"ome": {"version": version, "multiscales": scales}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_says_its_spacing_and_place_and_has_levels(tmp_path, zarr, version):
    path = write_ome(zarr, tmp_path / "a.zarr", version, more=[{"type": "translation", "translation": [100, 0, -30]}])
    assert_read(path, Geometry.from_axes(IMAGE.shape, (0.01, 0.02, 0.05), (-0.03, 0, 0.1)))
    half = IMAGE[::2, ::2, ::2]
    assert_read(path, Geometry.from_axes(half.shape, (0.02, 0.04, 0.1), (-0.03, 0, 0.1)), image=half, level=1)
    with pytest.raises(InputError, match="has no level 2: it holds 2"):
        read(path, level=2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_of_ome_zarr_a_channel_and_a_time_point_are_chosen(tmp_path, zarr, version):
    every = np.stack([np.stack([IMAGE + 100 * c]) for c in range(3)], 1)
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *UM]
    path = write_ome(zarr, tmp_path / "a.zarr", version, every, axes, (1, 1, 50, 20, 10))
    with pytest.raises(InputError, match="holds 3 channels"):
        read(path)
    assert_read(path, SAID, image=IMAGE + 200, c=2)
    with pytest.raises(InputError, match="has no c=3"):
        read(path, c=3)


def test_zarr_without_units_or_ome_asks_for_the_spacing(tmp_path, zarr):
    for path in (write_ome(zarr, tmp_path / "a.zarr", "0.5", axes=[{"name": name, "type": "space"} for name in "zyx"]), tmp_path / "b.zarr"):
        if not path.exists():
            zarr.create_array(str(path), shape=IMAGE.shape, dtype=IMAGE.dtype, shards=(6, 24, 20), chunks=(3, 8, 10))[...] = IMAGE
        with pytest.raises(InputError, match=ASKS):
            read(path)
        assert_read(path, SAID, (0.01, 0.02, 0.05))


def test_a_group_without_an_image_is_refused(tmp_path, zarr):
    zarr.create_group(str(tmp_path / "a.zarr"))
    with pytest.raises(InputError, match="is no OME-Zarr image"):
        read(tmp_path / "a.zarr")


def test_codecs_that_could_run_what_a_file_says_are_refused(tmp_path, zarr):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=IMAGE.shape, dtype=IMAGE.dtype, zarr_format=2, chunks=(3, 24, 20))[...] = IMAGE
    said = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    for change in ({"filters": [{"id": "pickle"}]}, {"compressor": {"id": "msgpack2"}}, {"dtype": "|O", "filters": [{"id": "pickle"}]}):
        (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps({**said, **change}))
        with pytest.raises(InputError, match="which is not read"):
            read(tmp_path / "a.zarr", (1,))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_and_pipes_in_a_zarr_are_refused(tmp_path, zarr):
    write_ome(zarr, tmp_path / "a.zarr", "0.5")
    (tmp_path / "a.zarr" / "s0" / "c0").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="holds c0, which is a link, a pipe or a device"):
        read(tmp_path / "a.zarr")


@pytest.mark.parametrize("path", ["../a.zarr/s0", "/etc", ""])
def test_levels_lie_within(tmp_path, zarr, path):
    write_ome(zarr, tmp_path / "a.zarr", "0.4")
    said = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    said["multiscales"][0]["datasets"][0]["path"] = path
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(said))
    with pytest.raises(InputError):
        read(tmp_path / "a.zarr")


def test_a_chunk_as_large_as_a_disk_is_a_sentence(tmp_path, zarr):
    write_ome(zarr, tmp_path / "a.zarr", "0.4")
    said = json.loads((tmp_path / "a.zarr" / "s0" / ".zarray").read_text())
    (tmp_path / "a.zarr" / "s0" / ".zarray").write_text(json.dumps({**said, "shape": [10**6, 10**6, 10**6], "chunks": [10**6, 10**6, 10**6]}))
    with pytest.raises(InputError):
        read(tmp_path / "a.zarr")


# ---------------------------------------------------------------- .npy, and what all have in common


def test_npy_asks_for_the_spacing(tmp_path):
    np.save(tmp_path / "a.npy", IMAGE)
    with pytest.raises(InputError, match=ASKS):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("array", [np.zeros((3, 4)), np.zeros((1, 4, 4)), np.zeros((2, 3, 4, 5)), np.zeros((2, 3, 4), complex)])
def test_npy_that_is_no_volume_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError):
        read(tmp_path / "a.npy", (1,))


def test_npy_with_objects_runs_nothing(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[print]]]), allow_pickle=True)
    with pytest.raises(InputError, match="type that is not read"):
        read(tmp_path / "a.npy", (1,))


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content[:20], lambda content: content.replace(b"24", b"99")])
def test_npy_that_is_cut_short_is_called_so(tmp_path, change):
    np.save(tmp_path / "b.npy", IMAGE)
    (tmp_path / "a.npy").write_bytes(change((tmp_path / "b.npy").read_bytes()))
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "a.npy", (1,))


def test_labels_without_a_grid_of_their_own_lie_on_the_images(tmp_path):
    np.save(tmp_path / "a.npy", PHANTOM.annotation)
    strokes = io.read_annotation(tmp_path / "a.npy", GRID, store=OnDisk(tmp_path))
    np.testing.assert_array_equal(strokes.annotation, PHANTOM.annotation)
    np.save(tmp_path / "a.npy", PHANTOM.annotation[1:])
    with pytest.raises(InputError, match=r"does not lie on the image's grid: 6 x 24 x 20 voxels instead of 7 x 24 x 20"):
        io.read_annotation(tmp_path / "a.npy", GRID)


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.mha"])
def test_files_that_say_all_themselves_take_no_spacing(tmp_path, name):
    io.write_volume(tmp_path / name, IMAGE, GRID)
    with pytest.raises(InputError, match="says itself how large its voxels are"):
        read(tmp_path / name, (1,))


@pytest.mark.parametrize("spacing", ["x", "1,2", "0", "-1", "nan", "inf", "1,1,0"])
def test_sizes_that_are_none(spacing):
    with pytest.raises(InputError, match="is no size of a voxel"):
        Taking.parse(spacing, "")


@pytest.mark.parametrize("select", ["x=1", "c", "c=-1", "c=a", "level"])
def test_selections_that_are_none(select):
    with pytest.raises(InputError, match="is not understood"):
        Taking.parse("", select)


def test_what_the_user_says_is_understood():
    assert Taking.parse("0.01,0.02,0.05", "level=1,c=2") == Taking((0.01, 0.02, 0.05), {"level": 1, "c": 2})
    assert Taking.parse("", "") == Taking()


# ---------------------------------------------------------------- out


def test_a_tiff_result_is_what_tifffile_reads(tmp_path, tifffile):
    io.write_segmentation(tmp_path / "a.tif", TRUTH, SAID, PHANTOM.classes)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert (file.is_ome, file.series[0].axes, len(file.pages)) == (True, "ZYX", len(TRUTH))
        np.testing.assert_array_equal(file.asarray(), TRUTH)
    assert_read(tmp_path / "a.tif", SAID, image=TRUTH)


def test_a_zarr_result_is_what_zarr_reads_and_names_its_labels(tmp_path, zarr):
    io.write_segmentation(tmp_path / "a.zarr", TRUTH, GRID, ClassTable.numbered(2, ["bright", "dark"]))
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    np.testing.assert_array_equal(group["0"][...], TRUTH)
    said = group.attrs["ome"]
    assert [axis["name"] for axis in said["multiscales"][0]["axes"]] == ["z", "y", "x"]
    assert [(each["label-value"], each["name"]) for each in said["image-label"]["properties"]] == [(1, "bright"), (2, "dark")]
    assert_read(tmp_path / "a.zarr", GRID, image=TRUTH)
    with pytest.raises(OutputError, match="is there already"):
        io.write_segmentation(tmp_path / "a.zarr", TRUTH, GRID, PHANTOM.classes)


def test_a_npy_result_is_what_numpy_reads(tmp_path):
    io.write_segmentation(tmp_path / "a.npy", TRUTH, GRID, PHANTOM.classes)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), TRUTH)


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_a_format_whose_library_is_missing_is_refused_before_the_work(tmp_path, name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PackageError, match=r"needs the package .*, which is not installed\. Install it: .*large"):
        io.check_output(tmp_path / name)


def test_a_file_whose_library_is_missing_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(100))
    monkeypatch.setattr(sys, "path", [])  # which the process that reads is given
    with pytest.raises(InputError, match=r"needs the package .*, which is not installed\. Install it"):
        read(tmp_path / "a.tif")


def test_the_program_that_reads_needs_nothing_of_the_package():
    assert "import sparseseg" not in stacks._PROGRAM.read_text(encoding="utf-8")
    assert "from .." not in stacks._PROGRAM.read_text(encoding="utf-8")


@pytest.mark.parametrize("ends", ["import os; os.abort()", "import time; time.sleep(60)"])
def test_a_reader_that_crashes_or_hangs_is_a_sentence(tmp_path, tifffile, ends, monkeypatch):
    """As the latter did with a damaged TIFF of 2 kB."""
    program = tmp_path / "stacking.py"
    program.write_text(ends)
    monkeypatch.setattr(stacks, "_PROGRAM", program)
    monkeypatch.setattr(stacks, "_PATIENCE_S", 2.0)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(InputError, match="cannot be read: it is damaged, cut short, or not an image"):
        read(tmp_path / "a.tif", (1.0, 1.0, 1.0))
