"""Headers that ask for more than there is, streams that hold something else than their headers say, and names of what is no file: one sentence each,
at once, and no memory."""

import contextlib
import gzip
import json
import os
import random
import signal
import socket
import struct
import sys
import textwrap
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

import dicoms
from grids import AXIAL
from phantoms import two_organs
from sparseseg import io
from sparseseg.contract import memory, opening
from sparseseg.contract.errors import InputError, SparseSegError
from sparseseg.contract.hints import Hints
from sparseseg.io import decoder as decoders
from sparseseg.io import dicomheader, rtstruct
from sparseseg.io.decoder import Decoder
from torture import files as hostile

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other such things")
NRRD = "NRRD0004\ntype: {type}\ndimension: 3\nsizes: {sizes}\nendian: little\nencoding: {encoding}\n\n"
META = "ObjectType = Image\nNDims = {axes}\nCompressedData = {packed}\nDimSize = {sizes}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"


def nrrd(sizes, encoding="raw", kind="short"):
    return NRRD.format(type=kind, sizes=sizes, encoding=encoding).encode()


def meta(sizes, packed=False, axes=3):
    return META.format(axes=axes, packed=packed, sizes=sizes).encode()


def nifti(sizes):
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 3, *sizes, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 4, 16)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    return bytes(head)


@pytest.fixture(autouse=True)
def at_once(request):
    """Nothing here may wait: a pipe, for instance, would for ever."""
    if sys.platform == "win32" or request.node.get_closest_marker("slow"):
        yield
        return

    def late(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- more than there is

ZEROS = bytes(10_000_000)  # packed, ten thousand bytes
HUGE = {
    "a.nrrd": nrrd("2000 2000 1200"),
    "b.nrrd": nrrd("2000 2000 1200", "gzip") + gzip.compress(ZEROS),
    "c.nrrd": nrrd("2000 2000 1200", "ascii") + b"1 " * 1000,
    "d.nrrd": nrrd("4294967296 4294967296 4294967296"),
    "e.nrrd": nrrd("9223372036854775807 2 2"),
    "a.mha": meta("2000 2000 1200"),
    "b.mha": meta("2000 2000 1200", packed=True) + zlib.compress(ZEROS),
    "a.nii": nifti((32767, 32767, 1000)),
    "a.nii.gz": gzip.compress(nifti((32767, 32767, 1000)) + ZEROS),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_file_that_cannot_hold_what_its_header_says_takes_no_memory(tmp_path, name, monkeypatch):
    asked = []
    real = np.empty
    monkeypatch.setattr(np, "empty", lambda shape, *more, **options: (asked.append(np.prod(shape, dtype=float)), real(shape, *more, **options))[1])
    (tmp_path / name).write_bytes(HUGE[name])
    with pytest.raises(InputError, match="damaged, cut short, or not an image"):
        io.read_volume(tmp_path / name)
    assert max(asked, default=0) < 1e6


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii.gz", "series"])
def test_a_file_that_needs_more_memory_than_is_free_is_refused_with_numbers(tmp_path, name, monkeypatch):
    phantom = two_organs((10, 40, 36))
    if name == "series":
        dicoms.write_series(tmp_path / name, phantom.image, phantom.geometry)
    else:
        io.write_volume(tmp_path / name, phantom.image, phantom.geometry)
    io.read_volume(tmp_path / name)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10_000)
    with pytest.raises(InputError, match=r"needs \d+ MB of memory to be read, and 0 MB are free"):
        io.read_volume(tmp_path / name)


MORE = {
    "a.nrrd": nrrd("6 5 4", "gzip") + gzip.compress(bytes(range(240)) + ZEROS),
    "b.nrrd": nrrd("6 5 4", "gzip") + gzip.compress(bytes(range(240))) + gzip.compress(ZEROS),
    "a.mha": meta("6 5 4", packed=True) + zlib.compress(bytes(range(240)) + ZEROS),
    "a.nii.gz": gzip.compress(nifti((6, 5, 4)) + bytes(range(240)) + ZEROS),
}


@pytest.mark.parametrize("name", MORE)
def test_a_stream_that_holds_more_than_its_header_says_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(MORE[name])
    with pytest.raises(InputError, match="holds more than its header says"):
        io.read_volume(tmp_path / name)


@pytest.mark.parametrize(
    "head",
    [meta("6 5 4", axes=n) for n in (300, 30, 99999, -1, 0, 2**31, "9" * 5000)]
    + [meta(sizes) for sizes in ("-6 5 4", "0 5 4", "6 5", "6 5 nan", f"6 5 {2**63}", "6.5 5 4", "")]
    + [meta("6 5 4").replace(b"MET_SHORT", b"M" * 5000), meta("6 5 4").replace(b"ElementDataFile = LOCAL\n", b"")]
    + [meta("6 5 4").replace(b"LOCAL", name) for name in (b"x" * 9000, b"..", b"/", b"/dev/zero", b"v%9999999d.raw 1 9999999 1", b"LIST")]
    + [nrrd(sizes) for sizes in ("-6 5 4", "0 5 4", "6 5", "6 5 nan", f"6 5 {2**63}", "1 " * 300, "")]
    + [
        nrrd("6 5 4").replace(b"endian", b"space: RAS\nspace directions: " + vectors + b"\nendian")
        for vectors in (b"(1,0,0)", b"(" * 99, b"none none none")
    ]
    + [nrrd("6 5 4").replace(b"dimension: 3", b"dimension: " + number) for number in (b"300", b"-1", b"9" * 5000)],
)
def test_nonsense_in_a_header_is_a_sentence(tmp_path, head):
    path = tmp_path / ("a.nrrd" if head.startswith(b"NRRD") else "a.mha")
    path.write_bytes(head + bytes(range(240)))
    try:
        io.read_volume(path)
    except SparseSegError as error:
        assert error.sentence.endswith(".") and len(error.sentence) < 400
    else:
        assert b"none none none" in head  # which is an image in no direction


def test_headers_have_an_end(tmp_path):
    phantom = two_organs((4, 8, 6))
    path = tmp_path / "a.seg.nrrd"
    io.write_annotation(path, phantom.annotation, phantom.geometry, phantom.classes)
    head, voxels = path.read_bytes().split(b"\n\n", 1)
    path.write_bytes(head + b"".join(b"\nf%d:=x" % n for n in range(80_000)) + b"\n\n" + voxels)
    assert np.array_equal(io.read_annotation(path, phantom.geometry).annotation, phantom.annotation)
    for more in (b"".join(b"\nf%d:=x" % n for n in range(120_000)), b"\nf:=" + b"x" * 17_000_000):
        path.write_bytes(head + more + b"\n\n" + voxels)
        with pytest.raises(InputError, match=r"has no end within 16 MB or 100000 lines"):
            io.read_annotation(path, phantom.geometry)
    path.write_bytes(head + b"".join(b"\nSegment%d_ID:=s%d" % (n, n) for n in range(40_000)) + b"\n\n" + voxels)
    with pytest.raises(InputError, match=r"has 40000 segments in 1 layers, more than the 254"):
        io.read_annotation(path, phantom.geometry)
    path.write_bytes(head + b"\nSegment0_Tags:=" + b"a|" * 4_000_000 + b"\n\n" + voxels)
    io.read_annotation(path, phantom.geometry)


# ---------------------------------------------------------------- DICOM


def dicom_series(folder, **options):
    phantom = two_organs((4, 8, 6))
    return dicoms.write_series(folder, phantom.image, phantom.geometry, **options)


@pytest.mark.parametrize("more", [20_000_000, 200_000_000])
def test_deflated_dicom_is_inflated_no_further_than_its_header_says(tmp_path, more):
    files = dicom_series(tmp_path / "s", transfer="deflated")
    raw = files[1].read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    packer = zlib.compressobj(wbits=-15)
    inner = packer.compress(zlib.decompress(raw[start:], -15)) + b"".join(packer.compress(ZEROS) for _ in range(more // len(ZEROS))) + packer.flush()
    files[1].write_bytes(raw[:start] + inner)
    with pytest.raises(InputError, match=r"more than its header says|more elements than the header"):
        io.read_volume(tmp_path / "s")


def test_a_number_of_dicom_that_is_millions_is_refused_before_each_becomes_an_object(tmp_path):
    file = dicom_series(tmp_path / "s", transfer="implicit")[1]  # explicit ones are of 64 kB at most
    dataset = dicoms.pydicom.dcmread(file)
    dataset.add_new("BitsAllocated", "UL", [7] * 5_000_000)
    dataset.save_as(file)
    header = dicomheader.read_header(file)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="'20000000 bytes'"):
            dicomheader.whole(header, "BitsAllocated", 0, "it")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", ["items", "elements", "nonsense", "nonsense behind what is half a value representation"])
def test_dicom_with_a_million_elements_is_refused_before_they_are_read(tmp_path, what):
    files = dicom_series(tmp_path / "s", transfer="explicit")
    raw = files[1].read_bytes()
    at = raw.rfind(b"\xe0\x7f\x10\x00")
    more = {
        "items": struct.pack("<HH2sHI", 0x7FDF, 0x1140, b"SQ", 0, 8_000_000) + b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000,
        "elements": b"".join(struct.pack("<HH2sH", 0x7FDF, n & 0xFFFF, b"LO", 0) for n in range(1_000_000)),
        "nonsense": b"\x11\x00\x22\x00\0\0\0\0" * 1_000_000,
        "nonsense behind what is half a value representation": struct.pack("<HH2sH", 0x7FDF, 0x1140, b"Tr", 0x6575) + ZEROS,
    }
    files[1].write_bytes(raw[:at] + more[what] + raw[at:])
    with pytest.raises(InputError, match="more elements than the header of a DICOM file can need"):
        io.read_volume(tmp_path / "s")


@pytest.mark.parametrize("rows", [65535, 4096])
def test_a_compressed_frame_of_another_size_than_the_header_says(tmp_path, rows):
    files = dicom_series(tmp_path / "s", transfer="jpeg lossless")
    for file in files:
        dataset = dicoms.pydicom.dcmread(file)
        dataset.Rows = dataset.Columns = rows
        dataset.save_as(file)
    with pytest.raises(InputError, match=r"damaged or cut short|of memory to be read"):
        io.read_volume(tmp_path / "s")


@pytest.mark.parametrize(
    "ends", ["import os; os.abort()", "import time; time.sleep(60)", "import sys; sys.exit(3)", "print('done', flush=True); input(); input()"]
)
def test_a_decoder_that_crashes_or_hangs_is_a_sentence(tmp_path, ends, monkeypatch):
    program = tmp_path / "decoding.py"
    program.write_text(f"import sys; sys.stdin.readline()\n{ends}\n")
    monkeypatch.setattr(decoders, "_PROGRAM", program)
    monkeypatch.setattr(decoders, "_PATIENCE_S", 2.0)
    dicom_series(tmp_path / "s", transfer="jpeg lossless")
    with pytest.raises(InputError, match=r"is damaged or cut short, or its compression .* is not known"):
        io.read_volume(tmp_path / "s")


def test_a_decoder_goes_on_after_a_crash(tmp_path):
    files = dicom_series(tmp_path / "s", transfer="rle")
    with Decoder() as decoder:
        from sparseseg.io.dicompixels import read_pixels

        first, _ = read_pixels(files[0], decoder)
        decoder._process.kill()
        decoder._process.wait()
        again, _ = read_pixels(files[0], decoder)
        folder = decoder._folder.path
    assert np.array_equal(first, again)
    assert not folder.exists()


def test_a_contour_that_crosses_every_row_again_and_again_takes_no_memory():
    """As many crossings as voxels in a large CT, a few at a time."""
    zigzag = np.column_stack([np.linspace(0, 99, 20_001), np.tile([-1.0, 600.0], 10_001)[:20_001]])
    tracemalloc.start()
    found = rtstruct.inside([zigzag], (512, 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.shape == (512, 100)
    assert peak < 150e6


def test_hints_that_nobody_could_mean(tmp_path):
    phantom = two_organs((10, 40, 36))
    many, wide = [[-18, 12, 8]] * 10_001, [{"at": [-18, 12, 8], "radius_mm": 900}] * 4000
    for points, said in ((many, "more than 10000 points"), (wide, "the balls around points cover")):
        (tmp_path / "h.json").write_text(json.dumps({"hints_version": 1, "coordinates": "LPS", "segments": {"bright": {"points": points}}}))
        with pytest.raises(InputError, match=said):
            Hints.from_json(io.read_hints(tmp_path / "h.json"), phantom.classes, phantom.geometry)
    (tmp_path / "h.json").write_bytes(b'{"hints_version": 1, "a": "' + b"x" * 17_000_000 + b'"}')
    with pytest.raises(InputError, match="more than 16 MB"):
        io.read_hints(tmp_path / "h.json")


# ---------------------------------------------------------------- what is no file


def no_file(kind, folder):
    """A path that must not be opened, and what is said of it."""
    path = folder / "a.nrrd"
    if kind == "pipe":
        os.mkfifo(path)
        return path, "is a pipe, not a file"
    if kind == "socket":
        os.chdir(folder)  # a socket's path may have a hundred characters
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path.name)
        listening.close()
        return path, "is a socket, not a file"
    if kind == "device":
        path.symlink_to("/dev/zero")
        return path, "is a device, not a file"
    if kind == "loop":
        path.symlink_to(path.name)
        return path, "is a link that leads to itself"
    if kind == "dangling":
        path.symlink_to("none")
        return path, "is a link to a file that is not there"
    if kind == "long name":
        return folder / ("x" * 300 + ".nrrd"), r"is too long \(305 characters\)"
    if kind == "no text":
        return folder / "a\ud800.nrrd", "cannot be the name of a file"
    path.symlink_to("/proc/self/status" if kind == "the system's" else "/proc/kmsg")
    return path, "empty|may not be read"


KINDS = ["pipe", "socket", "device", "loop", "dangling", "long name", "no text"]
INPUTS = {
    "image": lambda path, _: io.read_volume(path),
    "annotation": lambda path, _: io.read_annotation(path, AXIAL),
    "result": lambda path, _: io.read_dense(path, AXIAL),
    "labels": lambda path, _: io.read_labels(path, AXIAL),
    "hints": lambda path, _: io.read_hints(path),
    "channel": lambda path, image: io.read_channel(path, image),
    "series": lambda path, _: io.find_series(path),
}


@POSIX
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", INPUTS)
def test_what_is_no_file_is_not_opened(tmp_path, monkeypatch, kind, what):
    monkeypatch.chdir(tmp_path)
    path, said = no_file(kind, tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        INPUTS[what](path, io.Image(np.zeros(AXIAL.shape_kji, np.int16), AXIAL))
    assert len(caught.value.sentence) < 300


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has /proc")
@pytest.mark.parametrize("kind", ["the system's", "the system's log"])
@pytest.mark.parametrize("what", ["image", "annotation", "labels"])
def test_the_systems_own_files_are_no_images(tmp_path, kind, what):
    path, said = no_file(kind, tmp_path)
    with pytest.raises(InputError, match=said):
        INPUTS[what](path, None)


@POSIX
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("long name", "no text")])
@pytest.mark.parametrize("place", ["folder", "list", "nrrd", "mha", "markups"])
def test_what_is_no_file_among_files(tmp_path, monkeypatch, kind, place):
    files = dicom_series(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    path, said = no_file(kind, tmp_path / "s" if place == "folder" else tmp_path)
    monkeypatch.chdir(tmp_path)
    said = {"dangling": "is a link to a file|which is not beside it|There is no file"}.get(kind, said)
    if place == "folder":
        with pytest.raises(InputError, match=said):
            io.read_volume(tmp_path / "s")
    elif place == "list":
        (tmp_path / "l.txt").write_text("\n".join(map(str, [*files, path])))
        with pytest.raises(InputError, match=said):
            io.read_volume(tmp_path / "l.txt")
    elif place == "markups":
        (tmp_path / "h.json").write_text('{"hints_version": 1, "segments": {"a": {"roi": {"file": "a.nrrd"}}}}')
        with pytest.raises(InputError, match=said):
            io.read_hints(tmp_path / "h.json")
    else:
        head = nrrd("6 5 4")[:-1] + b"data file: a.nrrd\n" if place == "nrrd" else meta("6 5 4").replace(b"LOCAL", b"a.nrrd")
        (tmp_path / f"b.{place}").write_bytes(head)
        with pytest.raises(InputError, match=said):
            io.read_volume(tmp_path / f"b.{place}")


def test_names_that_windows_keeps_for_itself(monkeypatch):
    monkeypatch.setattr(opening.sys, "platform", "win32")
    for name in ("CON.nrrd", "nul", "com1.txt", "a.nrrd.", "a.nrrd ", "a.nrrd:stream"):
        with pytest.raises(InputError, match="cannot be the name of a file on Windows"):
            opening._check_name(Path("folder") / name)
    for name in ("CONTROL.nrrd", "a.nrrd", ".hidden.nrrd"):
        opening._check_name(Path("folder") / name)


# ---------------------------------------------------------------- many of each


@pytest.mark.parametrize("name", [name for name in hostile.FORMATS if name not in ("compressed_series", "tiff", "zarr")])
def test_some_hostile_files_of_every_format(tmp_path, name):
    """`make torture` makes many more, where a crash is told."""
    attempt = hostile.FORMATS[name](tmp_path)
    for number in range(20):
        with contextlib.suppress(SparseSegError):
            attempt(random.Random(f"{name}/18/{number}"))


def test_an_attempt_is_made_again_from_its_numbers(tmp_path):
    assert hostile.changed(b"NRRD0004\nsizes: 1 2 3\n", random.Random("a/1/2")) == hostile.changed(
        b"NRRD0004\nsizes: 1 2 3\n", random.Random("a/1/2")
    )


def test_the_program_that_decodes_needs_nothing_of_the_package():
    assert "sparseseg" not in textwrap.dedent(decoders._PROGRAM.read_text()).replace('"""', "").split("import", 1)[1]
