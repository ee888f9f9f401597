"""To an archive and back: our SEG and RTSTRUCT sent to real servers on loopback (Orthanc, DCMTK's storescp), listed there, and fetched again."""

import subprocess

import numpy as np
import pydicom
import pytest

import dicoms
from orthanc import ARCHIVE, PATIENCE_S, SENDER, Orthanc, free_port, listens, running
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.geometry import Geometry
from sparseseg.io.files import read_volume

pytest.importorskip("highdicom", reason="highdicom is not installed (pip install -e '.[dicom]')")
pytest.importorskip("contourpy", reason="contourpy is not installed (pip install -e '.[dicom]')")
from sparseseg.io.dicomseg import read_seg, write_seg
from sparseseg.io.rtstruct import write_rtstruct

SHAPE = (5, 24, 32)  # (K, J, I)
GEOMETRY = Geometry.from_axes(SHAPE, (0.75, 0.5, 2.5), (-7.25, 3.5, 100.125), dicoms.rotation(10, 20, 30).ravel())
CLASSES = ClassTable((Segment("Segment_a", "Léber", (0.8, 0.5, 0.4)), Segment("Segment_b", "dark", (0.1, 0.2, 0.9))))


# ---------------------------------------------------------------- servers and tools


def dcmtk(name, *arguments, folder=None):
    """Runs a tool, in `folder` where it writes files: some options make it forget -od."""
    command = [dicoms.tool(name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace", timeout=PATIENCE_S)
    assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    program = dicoms.tool("Orthanc")
    folder = tmp_path_factory.mktemp("archive")
    orthanc = Orthanc(folder)
    with running([program, orthanc.configuration], folder / "log.txt", orthanc.answers):
        yield orthanc


@pytest.fixture
def archive(server):
    """Empty: starting one for each test takes seconds."""
    yield server
    for patient in server.json("/patients"):
        server.request("DELETE", f"/patients/{patient}")


# ---------------------------------------------------------------- what is sent


def some_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 4:20, 5:25] = 1
    labels[2, 8:12, 9:15] = 0
    labels[0:3, 0:3, 28:] = 2
    return labels


@pytest.fixture(params=["slices", "enhanced, UTF-8"])
def sent(request, tmp_path):
    """(images, SEG, RTSTRUCT): the files of a source series, and our results on it."""
    stored = np.random.default_rng(2).integers(-500, 500, SHAPE).astype(np.int16)
    folder = tmp_path / "images"
    if request.param == "slices":
        images = dicoms.write_series(folder, stored, GEOMETRY)
    else:
        images = [dicoms.write_enhanced(folder / "one.dcm", stored, GEOMETRY, charset="ISO_IR 192")]
    series = read_volume(folder).series
    write_seg(tmp_path / "seg.dcm", some_labels(), series, CLASSES)
    write_rtstruct(tmp_path / "structures.dcm", some_labels(), series, CLASSES)
    return images, tmp_path / "seg.dcm", tmp_path / "structures.dcm"


def send(port, files, receiver=ARCHIVE):
    dcmtk("storescu", "--required", "-aet", SENDER, "-aec", receiver, "127.0.0.1", port, *files)


def assert_same_dataset(got, path):
    """Element for element, sequences too; the file's meta information is each program's own."""
    wanted = pydicom.dcmread(path)
    assert list(got.keys()) == list(wanted.keys())
    assert got == wanted
    assert got.file_meta.TransferSyntaxUID == wanted.file_meta.TransferSyntaxUID


def assert_reads_back(path):
    back = read_seg(path, GEOMETRY)
    np.testing.assert_array_equal(back.annotation, np.where(some_labels() > 0, some_labels() + 1, 0))
    assert back.classes.names == CLASSES.names


# ---------------------------------------------------------------- Orthanc


def test_orthanc_files_the_results_with_their_study(archive, sent):
    images, seg, structures = sent
    send(archive.dicom, [*images, seg, structures])
    source = pydicom.dcmread(images[0])
    (patient,) = archive.json("/patients?expand")
    assert patient["MainDicomTags"]["PatientName"] == str(source.PatientName)
    assert patient["MainDicomTags"]["PatientID"] == source.PatientID
    (study,) = archive.json("/studies?expand")
    assert study["MainDicomTags"]["StudyInstanceUID"] == source.StudyInstanceUID
    assert study["ParentPatient"] == patient["ID"]
    series = {item["MainDicomTags"]["Modality"]: item for item in archive.json("/series?expand")}
    assert {modality: len(item["Instances"]) for modality, item in series.items()} == {"CT": len(images), "SEG": 1, "RTSTRUCT": 1}
    assert {item["ParentStudy"] for item in series.values()} == {study["ID"]}
    assert series["CT"]["MainDicomTags"]["SeriesInstanceUID"] == source.SeriesInstanceUID


def test_what_the_seg_refers_to_is_in_the_archive(archive, sent):
    """As a viewer follows it: from each frame of the SEG to the image that it was drawn on."""
    images, seg, structures = sent
    send(archive.dicom, [*images, seg, structures])
    kept = {archive.json(f"/instances/{item}")["MainDicomTags"]["SOPInstanceUID"] for item in archive.json("/instances")}
    dataset = pydicom.dcmread(seg)
    frames = dataset.PerFrameFunctionalGroupsSequence
    named = {frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for frame in frames}
    assert named <= kept
    (study,) = pydicom.dcmread(structures).ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    assert {item.ReferencedSOPInstanceUID for item in study.RTReferencedSeriesSequence[0].ContourImageSequence} <= kept


def test_fetched_over_http(archive, sent, tmp_path):
    images, seg, structures = sent
    send(archive.dicom, [*images, seg, structures])
    for path in (seg, structures):
        fetched = tmp_path / f"fetched {path.name}"
        fetched.write_bytes(archive.file(pydicom.dcmread(path).SOPInstanceUID))
        assert_same_dataset(pydicom.dcmread(fetched), path)
        assert dicoms.dciodvfy(fetched) == []
    assert_reads_back(tmp_path / "fetched seg.dcm")


def query_for(dataset):
    keys = ["QueryRetrieveLevel=IMAGE"]
    keys += [f"{keyword}={dataset.get(keyword)}" for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
    return [part for key in keys for part in ("-k", key)]


@pytest.mark.parametrize("tool", ["getscu", "movescu"])
def test_fetched_over_dimse(archive, sent, tmp_path, tool):
    """C-GET; and C-MOVE, where the archive sends to movescu on the port that it knows."""
    images, seg, structures = sent
    send(archive.dicom, [*images, seg, structures])
    for path in (seg, structures):
        folder = tmp_path / f"fetched {path.stem}"
        folder.mkdir()
        options = ["-S", "-aet", SENDER, "-aec", ARCHIVE, "-od", folder]
        options += ["-aem", SENDER, "--port", archive.fetcher] if tool == "movescu" else []
        dcmtk(tool, *options, *query_for(pydicom.dcmread(path)), "127.0.0.1", archive.dicom, folder=folder)
        (fetched,) = folder.iterdir()
        assert_same_dataset(pydicom.dcmread(fetched), path)
    assert_reads_back(next((tmp_path / "fetched seg").iterdir()))


def test_a_series_fetched_from_the_archive_is_segmented_alike(archive, sent, tmp_path):
    """The way in: the images out of the archive, and the SEG on them."""
    images, seg, _ = sent
    send(archive.dicom, [*images, seg])
    folder = tmp_path / "fetched"
    folder.mkdir()
    for n, path in enumerate(images):
        (folder / f"{n}").write_bytes(archive.file(pydicom.dcmread(path).SOPInstanceUID))
    before, after = read_volume(images[0].parent), read_volume(folder)
    np.testing.assert_array_equal(after.array, before.array)
    assert after.geometry == before.geometry
    assert [frame.uid for frame in after.series.frames] == [frame.uid for frame in before.series.frames]


def test_sent_twice_is_kept_once(archive, sent):
    _, seg, _ = sent
    send(archive.dicom, [seg])
    send(archive.dicom, [seg])
    assert len(archive.json("/instances")) == 1


# ---------------------------------------------------------------- storescp


def test_storescp_receives_what_was_sent(sent, tmp_path):
    images, seg, structures = sent
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    command = [dicoms.tool("storescp"), "--promiscuous", "--bit-preserving", "-od", folder, port]
    with running(command, tmp_path / "log.txt", lambda: listens(port)):
        send(port, [*images, seg, structures])
    received = {pydicom.dcmread(path).SOPInstanceUID: path for path in folder.iterdir()}
    assert len(received) == len(images) + 2
    for path in (*images, seg, structures):
        assert_same_bytes(received[pydicom.dcmread(path).SOPInstanceUID], path)
    assert_reads_back(received[pydicom.dcmread(seg).SOPInstanceUID])


def assert_same_bytes(received, path):
    """All that follows the meta information, which is the receiver's own."""
    assert_same_dataset(pydicom.dcmread(received), path)
    assert after_meta_information(received) == after_meta_information(path)


def after_meta_information(path):
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")  # of (0002,0000), which says how long the rest of the group is
    return content[144 + length :]
