"""Volumes that need not fit into memory, in every format, read and written part by part: against independent readers and writers of each."""

import errno
import gzip
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from phantoms import two_organs
from sparseseg import io
from sparseseg.contract import store
from sparseseg.contract.errors import OutputError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.store import OnDisk
from sparseseg.io import output, stackwriting

PHANTOM = two_organs((9, 20, 16))
IMAGE, TRUTH, GRID, CLASSES = PHANTOM.image, PHANTOM.truth, PHANTOM.geometry, PHANTOM.classes
TURNED = Geometry.from_axes(IMAGE.shape, (0.5, 0.75, 2.0), (3, -4, 5), (0, 0, -1, 1, 0, 0, 0, 1, 0))


@pytest.fixture(autouse=True)
def few_voxels_at_a_time(monkeypatch):
    monkeypatch.setattr(store, "SLAB_VOXELS", 1000)


def read_on_disk(path, folder, **how):
    volume = io.read_volume(path, store=OnDisk(folder), **how)
    assert isinstance(volume.array, np.memmap)
    return volume


# ---------------------------------------------------------------- in


@pytest.mark.parametrize("kind", ["i2", "u1", "f4", "f8", "i8"])
@pytest.mark.parametrize("name", ["a.nrrd", "b.nrrd", "a.mha", "b.mha", "a.nii", "a.nii.gz"])
def test_what_itk_wrote_is_read_onto_the_disk_as_itk_reads_it(tmp_path, name, kind):
    image = sitk.GetImageFromArray(IMAGE.astype(kind) if kind != "u1" else TRUTH)
    image.SetSpacing(GRID.spacing_ijk_mm)
    sitk.WriteImage(image, str(tmp_path / name), name[0] == "a")
    volume = read_on_disk(tmp_path / name, tmp_path)
    again = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
    np.testing.assert_array_equal(volume.array, again)
    np.testing.assert_array_equal(volume.array, io.read_volume(tmp_path / name).array)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_big_endian_numbers_are_turned_while_they_are_read(tmp_path, encoding):
    nrrd = pytest.importorskip("nrrd")
    nrrd.write(str(tmp_path / "a.nrrd"), IMAGE.T.astype(">i2"), {"encoding": encoding, "endian": "big"}, index_order="F")
    volume = read_on_disk(tmp_path / "a.nrrd", tmp_path)
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, IMAGE)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_scaled_big_endian_nifti_is_scaled_while_it_is_read(tmp_path, ending):
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(IMAGE.T, np.diag([-1, -1, 2, 1.0]), header=header)
    image.header.set_slope_inter(0.5, 3)
    nibabel.save(image, tmp_path / f"a{ending}")
    volume = read_on_disk(tmp_path / f"a{ending}", tmp_path)
    np.testing.assert_allclose(volume.array, nibabel.load(tmp_path / f"a{ending}").get_fdata().T, atol=1e-3)


@pytest.mark.parametrize("turned", [np.ascontiguousarray, np.asfortranarray])
@pytest.mark.parametrize("kind", ["<i2", ">i2", "u1", "<f8", "?"])
def test_npy_in_either_order_is_read(tmp_path, kind, turned):
    array = turned(IMAGE.astype(kind) if kind != "?" else TRUTH > 0)
    np.save(tmp_path / "a.npy", array)
    volume = io.read_volume(tmp_path / "a.npy", store=OnDisk(tmp_path), taking=io.Taking((0.5, 0.75, 2.0)))
    assert volume.geometry == Geometry.from_axes(IMAGE.shape, (0.5, 0.75, 2.0))
    np.testing.assert_array_equal(volume.array, array)


def test_strokes_of_several_layers_and_label_maps_are_merged_on_the_disk(tmp_path):
    annotation = PHANTOM.annotation
    for name in ("a.seg.nrrd", "a.nii.gz", "a.nrrd"):
        io.write_annotation(tmp_path / name, annotation, GRID, CLASSES)
        strokes = io.read_annotation(tmp_path / name, GRID, store=OnDisk(tmp_path))
        assert isinstance(strokes.annotation, np.memmap)
        np.testing.assert_array_equal(strokes.annotation, annotation)


def test_labels_in_another_order_are_turned_on_the_disk(tmp_path):
    flipped = sitk.GetImageFromArray(PHANTOM.annotation)
    flipped.SetSpacing(GRID.spacing_ijk_mm)
    flipped.SetOrigin(GRID.origin_lps_mm)
    sitk.WriteImage(sitk.PermuteAxes(sitk.Flip(flipped, [True, False, True]), [2, 0, 1]), str(tmp_path / "a.nii.gz"))
    strokes = io.read_annotation(tmp_path / "a.nii.gz", GRID, store=OnDisk(tmp_path))
    np.testing.assert_array_equal(strokes.annotation, PHANTOM.annotation)
    assert "another order" in strokes.remarks[0]


# ---------------------------------------------------------------- out


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii", "a.nii.gz"])
def test_what_is_written_part_by_part_is_what_itk_reads(tmp_path, name, kind):
    io.write_volume(tmp_path / name, IMAGE.astype(kind), TURNED)
    found = sitk.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), IMAGE.astype(kind))
    grid = Geometry.from_axes(found.GetSize()[::-1], found.GetSpacing(), found.GetOrigin(), found.GetDirection())
    assert not grid.difference_from(TURNED)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_result_on_a_big_endian_image_is_big_endian(tmp_path, ending):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(IMAGE.T, np.eye(4), header=nibabel.Nifti1Header(endianness=">")), tmp_path / f"a{ending}")
    image = io.read_volume(tmp_path / f"a{ending}")
    io.write_volume(tmp_path / f"b{ending}", image.array.astype(np.float32), image.geometry, like=image)
    again = nibabel.load(tmp_path / f"b{ending}")
    assert again.header.endianness == ">"
    np.testing.assert_array_equal(again.get_fdata().T, IMAGE)


@pytest.mark.parametrize("name", ["a.nrrd", "a.seg.nrrd"])
def test_what_is_written_part_by_part_is_what_pynrrd_reads(tmp_path, name):
    nrrd = pytest.importorskip("nrrd")
    io.write_segmentation(tmp_path / name, TRUTH, TURNED, CLASSES)
    values, header = nrrd.read(str(tmp_path / name), index_order="C")
    np.testing.assert_array_equal(values, TRUTH)
    np.testing.assert_allclose(header["space directions"].T, TURNED.matrix[:3, :3], atol=1e-12)


def test_packed_files_hold_one_stream(tmp_path):
    """Several members would be read by some programs only."""
    io.write_segmentation(tmp_path / "a.nii.gz", TRUTH, GRID, CLASSES)
    content = (tmp_path / "a.nii.gz").read_bytes()
    assert content.count(b"\x1f\x8b\x08") == 1
    assert len(gzip.decompress(content)) == 352 + TRUTH.size


@pytest.mark.parametrize("name", ["a.seg.nrrd", "a.nrrd", "a.mha", "a.nii.gz", "a.npy", "a.tif", "a.zarr"])
def test_a_disk_that_gets_full_in_the_middle_keeps_the_earlier_file_and_says_what_to_free(tmp_path, name, monkeypatch):
    if name in ("a.tif", "a.zarr"):
        pytest.importorskip({"a.tif": "tifffile", "a.zarr": "zarr"}[name])
    else:
        (tmp_path / name).write_bytes(b"earlier")
    real = output.slabs

    def half(array, depth=None):
        for n, slab in enumerate(real(array, depth or 3)):
            if n:
                raise OSError(errno.ENOSPC, "No space left on device")
            yield slab

    monkeypatch.setattr(output, "slabs", half)
    monkeypatch.setattr(stackwriting, "_CHUNK_KJI", (3, 16, 16))
    with pytest.raises(OutputError, match=r"No space left on device\)\. Free \d+ MB there, or choose another place") as caught:
        io.write_segmentation(tmp_path / name, TRUTH, GRID, CLASSES)
    assert name in caught.value.sentence
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({} if name in ("a.tif", "a.zarr") else {name: b"earlier"})


# ---------------------------------------------------------------- memory

BOUNDED = """
import gzip, resource, sys
from pathlib import Path
import numpy as np
from sparseseg import io
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.lock import Owner
from sparseseg.contract.settings import Settings
from sparseseg.contract.store import OnDisk
from sparseseg.report import ReportInput, write_report

folder, (k, j, i) = Path(sys.argv[1]), (200, 400, 300)
grid = Geometry.from_axes((k, j, i), (1, 1, 1))
plane = (np.arange(j * i) % 1000).astype("<i2").reshape(j, i)
head = b"NRRD0004\\ntype: %s\\ndimension: 3\\nspace: LPS\\nsizes: 300 400 200\\nspace directions: (1,0,0) (0,1,0) (0,0,1)\\nendian: little\\n"
for name, packing in (("raw", b"raw"), ("gzip", b"gzip")):
    with open(folder / f"{name}.nrrd", "wb") as file:
        file.write(head % b"short" + b"space origin: (0,0,0)\\nencoding: " + packing + b"\\n\\n")
        out = file if name == "raw" else gzip.open(file, "wb", 1)
        for n in range(k):
            out.write((plane + n).tobytes())
        if out is not file:
            out.close()
with gzip.open(folder / "labels.nrrd.gz", "wb", 1) as file:
    for n in range(k):
        file.write((plane % 3 if n % 50 == 0 else np.zeros_like(plane)).astype("u1").tobytes())
(folder / "labels.nrrd").write_bytes(head % b"uchar" + b"space origin: (0,0,0)\\nencoding: gzip\\n\\n" + (folder / "labels.nrrd.gz").read_bytes())
def taken():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])
limit = taken() + 45_000_000
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones(48_000_000, np.uint8)
    sys.exit("the limit does not hold")
except MemoryError:
    pass
for name in ("raw", "gzip"):
    with Owner(folder / name):
        store = OnDisk(folder / name)
        volume = io.read_volume(folder / f"{name}.nrrd", store=store)
        assert volume.array.nbytes == 48_000_000
        strokes = io.read_annotation(folder / "labels.nrrd", volume.geometry, store=store)
        Job.create(folder / name, volume.array, strokes.annotation, JobRecord(grid, strokes.classes, Settings())).close()
        assert volume.array[-1, -1, -1] == plane[-1, -1] + k - 1
        for ending in (".seg.nrrd", ".nii.gz", ".mha", ".npy"):
            io.write_segmentation(folder / f"out{ending}", np.load(folder / name / "annotation.npy", mmap_mode="r"), grid, ClassTable.numbered(2))
            assert ending == ".seg.nrrd" or io.read_volume(folder / f"out{ending}", store=store, onto=grid).array.max() == 2
    with Job.open(folder / name) as job:
        painted = job.annotation()
        write_report(folder / "r.html", ReportInput("x", job.image(), painted, painted, grid, strokes.classes, {}, {}, None, painted))
        assert "where the result is least sure" not in (folder / "r.html").read_text()  # all of it was painted
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the data of a process")
def test_a_volume_larger_than_the_memory_is_read_made_a_job_written_and_reported(tmp_path):
    """24 million voxels, 48 MB, and all that is made of them, in 45 MB."""
    ended = subprocess.run([sys.executable, "-c", BOUNDED, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert ended.stdout.strip() == "done", ended.stderr[-3000:]
