"""DICOM SEG and RTSTRUCT out, judged by others: dciodvfy, highdicom, plain pydicom, dcmqi, and contours filled here; and others' SEG in."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import UID

import dicoms
from cases import SHARED
from sparseseg import __version__
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import AnnotationError, InputError, OutputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io.files import read_annotation, read_volume, write_segmentation, write_volume

hd = pytest.importorskip("highdicom", reason="highdicom is not installed (pip install -e '.[dicom]')")
pytest.importorskip("contourpy", reason="contourpy is not installed (pip install -e '.[dicom]')")
from sparseseg.io.dicomseg import read_seg, write_seg  # noqa: E402
from sparseseg.io.rtstruct import write_rtstruct  # noqa: E402

SHAPE = (7, 30, 40)  # (K, J, I)
TILTED = dicoms.rotation(10, 20, 30)
PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
    *("AccessionNumber", "StudyDescription", "ReferringPhysicianName"),
)


def grid(direction=None):
    return Geometry.from_axes(SHAPE, (0.75, 0.5, 2.5), (-7.25, 3.5, 100.125), np.ravel(np.eye(3) if direction is None else direction))


def entry(
    category, kind, modifier="^^", region="^^", region_modifier="^^", context="Segmentation category and type - 3D Slicer General Anatomy list"
):
    """Slicer's segment tag."""
    return "~".join([context, category, kind, modifier, "Anatomic codes - DICOM master list", region, region_modifier])


LIVER = entry("SCT^123037004^Anatomical Structure", "SCT^10200004^Liver")
KIDNEY = entry("SCT^123037004^Anatomical Structure", "SCT^64033007^Kidney", "SCT^7771000^Left")
MASS = entry("SCT^49755003^Morphologically Altered Structure", "SCT^4147007^Mass", "^^", "SCT^64033007^Kidney", "SCT^24028007^Right")
CLASSES = ClassTable(
    (
        Segment("Segment_a", "Léber", (0.867, 0.506, 0.396), {"TerminologyEntry": LIVER}),
        Segment("Segment_b", "Niere links", (0.722, 0.18, 0.0), {"TerminologyEntry": KIDNEY}),
        Segment("Segment_c", "mass", (0.1, 0.9, 0.2), {"TerminologyEntry": MASS}),
    )
)


def hard_labels(shape=SHAPE):
    """(K, J, I) uint8, 1 to 3: a ring with an island of another segment, voxels that touch at corners only, borders, and slices without any."""
    labels = np.zeros(shape, np.uint8)
    labels[1:5, 3:20, 4:25] = 1
    labels[2:5, 6:16, 8:20] = 0
    labels[2:4, 9:12, 11:15] = 2
    labels[3, 7, 9] = labels[3, 8, 10] = 1
    labels[0:3, -3:, -4:] = 2
    labels[5, :, 0] = labels[5, 0, :] = 3
    scattered = (np.random.default_rng(1).random(shape) < 0.05) & (labels == 0)
    scattered[:4] = scattered[-1] = False
    labels[scattered] = 3
    return labels


SOURCES = {
    "CT": {"direction": np.eye(3)},
    "MR oblique, UTF-8": {"direction": TILTED, "modality": "MR", "charset": "ISO_IR 192", "name": "Łukasiewicz^Żaneta=山田^太郎"},
    "CT left-handed": {"direction": np.diag([1, 1, -1])},
    "CT oblique left-handed, JPEG 2000": {"direction": TILTED @ np.diag([1, 1, -1]), "transfer": "jpeg 2000"},
    "PT sagittal": {"direction": [[0, 0, -1], [1, 0, 0], [0, -1, 0]], "modality": "PT"},
    "CT big endian": {"direction": np.eye(3), "transfer": "big endian"},
    "CT without preamble": {"direction": np.eye(3), "preamble": False},
    "enhanced CT": {"enhanced": True, "direction": np.eye(3)},
    "enhanced MR oblique, frames mixed": {"enhanced": True, "direction": TILTED, "modality": "MR", "frame_order": (3, 0, 6, 4, 1, 5, 2)},
    "enhanced CT left-handed": {"enhanced": True, "direction": np.diag([1, 1, -1]), "per_frame": ("orientation", "spacing", "rescale")},
}


@dataclass
class Source:
    folder: Path
    volume: object  # files.Volume
    labels: np.ndarray  # (K, J, I) uint8 on the volume's grid

    @property
    def series(self):
        return self.volume.series

    @property
    def geometry(self):
        return self.volume.geometry

    @property
    def headers(self):
        """Of the slices, in the order of k."""
        return [pydicom.dcmread(frame.file, force=True) for frame in self.series.frames]


def make_source(folder, direction, enhanced=False, **options):
    stored = np.random.default_rng(2).integers(-500, 500, SHAPE).astype(np.int16)
    if enhanced:
        dicoms.write_enhanced(folder / "enhanced.dcm", stored, grid(direction), **options)
    else:
        dicoms.write_series(folder, stored, grid(direction), shuffle=True, **options)
    return Source(folder, read_volume(folder), hard_labels())


@pytest.fixture(scope="module", params=SOURCES)
def source(request, tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source") / "dicom", **SOURCES[request.param])


@pytest.fixture(scope="module")
def plain_source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source") / "dicom", **SOURCES["CT"])


@pytest.fixture(scope="module")
def ct():
    """The real CT, its truth and names."""
    folder = SHARED / "ct-dicom"
    if not folder.is_dir():
        pytest.skip("development data ct-dicom is not beside the repository")
    volume = read_volume(folder / "dicom")
    names = json.loads((folder / "case.json").read_text(encoding="utf-8"))["labels"]
    truth = read_volume(folder / "truth.nii.gz").array.astype(np.uint8)
    return Source(folder, volume, truth), ClassTable.numbered(len(names), sorted(names, key=names.get))


def as_annotation(labels):
    """What comes back of a SEG: 0 unlabelled, 1 + c segment c."""
    return np.where(labels > 0, labels + 1, 0).astype(np.uint8)


def assert_comes_back(path, source, classes=CLASSES):
    back = read_seg(path, source.geometry)
    np.testing.assert_array_equal(back.annotation, as_annotation(source.labels))
    assert back.classes.names == classes.names
    assert not back.overlaps
    return back.classes


# ---------------------------------------------------------------- SEG out, read by others


def test_seg(source, tmp_path):
    assert write_seg(tmp_path / "out.dcm", source.labels, source.series, CLASSES) == []
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    back = assert_comes_back(tmp_path / "out.dcm", source)
    assert back.ids == CLASSES.ids
    for ours, theirs in zip(CLASSES.segments, back.segments, strict=True):
        np.testing.assert_allclose(ours.color, theirs.color, atol=1.5 / 255)
    assert [path.name for path in tmp_path.iterdir()] == ["out.dcm"]


def test_highdicom_reads_the_same(source, tmp_path):
    """As a volume, whose slices highdicom may order against ours, and which holds the segmented slices only."""
    write_seg(tmp_path / "out.dcm", source.labels, source.series, CLASSES)
    volume = hd.seg.segread(tmp_path / "out.dcm").get_volume(combine_segments=True)
    if volume.affine[:3, 0] @ source.geometry.matrix[:3, 2] < 0:
        volume = volume.flip_spatial([0])
    np.testing.assert_allclose(volume.affine[:3, :3], source.geometry.matrix[:3, 2::-1], atol=1e-6)
    first = np.linalg.solve(source.geometry.matrix, [*volume.position, 1])[:3]
    np.testing.assert_allclose(first, np.rint(first), atol=1e-3)
    seen = np.flatnonzero(source.labels.any(axis=(1, 2)))
    assert (round(float(first[2])), len(volume.array)) == (seen[0], seen[-1] - seen[0] + 1)
    np.testing.assert_array_equal(volume.array, source.labels[seen[0] : seen[-1] + 1])


def test_highdicom_finds_each_slice_by_its_source(source, tmp_path):
    write_seg(tmp_path / "out.dcm", source.labels, source.series, CLASSES)
    seg = hd.seg.segread(tmp_path / "out.dcm")
    uids = [frame.uid for frame in source.series.frames]
    options = {"combine_segments": True, "assert_missing_frames_are_empty": True, "ignore_spatial_locations": True}
    if len(set(uids)) > 1:
        pixels = seg.get_pixels_by_source_instance(uids, **options)
    else:
        pixels = seg.get_pixels_by_source_frame(uids[0], [frame.number + 1 for frame in source.series.frames], **options)
    np.testing.assert_array_equal(pixels, source.labels)


def places_of(source):
    """For (SOP Instance UID, frame from 1): its k and its position, from the source's own files."""
    places = {}
    for k, (frame, header) in enumerate(zip(source.series.frames, source.headers, strict=True)):
        holder = header
        if "PerFrameFunctionalGroupsSequence" in header:
            holder = header.PerFrameFunctionalGroupsSequence[frame.number].PlanePositionSequence[0]
        places[frame.uid, frame.number + 1] = k, np.array(holder.ImagePositionPatient, dtype=float)
    return places


def reference_of(frame):
    """(SOP Instance UID, frame from 1) that a frame's item of functional groups was derived from."""
    (derivation,) = frame.DerivationImageSequence
    (image,) = derivation.SourceImageSequence
    return image.ReferencedSOPInstanceUID, int(image.get("ReferencedFrameNumber", 1))


def test_plain_pydicom_reads_the_same(source, tmp_path):
    """Bits unpacked here; each frame laid where its source's slice is, and its own position must agree."""
    write_seg(tmp_path / "out.dcm", source.labels, source.series, CLASSES)
    seg = pydicom.dcmread(tmp_path / "out.dcm")
    assert (seg.SOPClassUID, seg.Modality, seg.SegmentationType, seg.BitsAllocated) == ("1.2.840.10008.5.1.4.1.1.66.4", "SEG", "BINARY", 1)
    count = int(seg.NumberOfFrames) * seg.Rows * seg.Columns
    frames = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")[:count].reshape(-1, seg.Rows, seg.Columns)
    labels, places = np.zeros(SHAPE, np.uint8), places_of(source)
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        k, position = places[reference_of(frame)]
        np.testing.assert_allclose(np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=float), position, atol=1e-6)
        assert not labels[k][pixels > 0].any()
        labels[k][pixels > 0] = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    np.testing.assert_array_equal(labels, source.labels)


def test_references_are_listed(source, tmp_path):
    write_seg(tmp_path / "out.dcm", source.labels, source.series, CLASSES)
    seg, header = pydicom.dcmread(tmp_path / "out.dcm"), source.headers[0]
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == header.SeriesInstanceUID != seg.SeriesInstanceUID
    listed = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    shown = {frame.uid for k, frame in enumerate(source.series.frames) if source.labels[k].any()}
    assert shown <= listed <= {frame.uid for frame in source.series.frames}
    assert {item.ReferencedSOPClassUID for item in series.ReferencedInstanceSequence} == {header.SOPClassUID}
    assert seg.FrameOfReferenceUID == header.FrameOfReferenceUID


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_patient_and_study_are_copied_exactly(source, tmp_path, kind):
    writer = {"seg": write_seg, "rtstruct": write_rtstruct}[kind]
    writer(tmp_path / "out.dcm", source.labels, source.series, CLASSES.with_names(["liver", "kidney", "mass"]))
    out, header = pydicom.dcmread(tmp_path / "out.dcm"), source.headers[0]
    for keyword in PATIENT_AND_STUDY:
        assert out.get(keyword) == header.get(keyword), keyword
    assert out.SpecificCharacterSet == header.SpecificCharacterSet
    assert out.SeriesNumber != header.SeriesNumber
    assert out.SOPInstanceUID != header.SOPInstanceUID
    assert out.SeriesInstanceUID not in {other.SeriesInstanceUID for other in source.headers}
    assert not [element for element in out.iterall() if element.tag.is_private]


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_names_beyond_ascii_make_it_utf_8(plain_source, tmp_path, kind):
    classes = CLASSES.with_names(["Łokieć", "肝臓", "plain"])
    writer = {"seg": write_seg, "rtstruct": write_rtstruct}[kind]
    writer(tmp_path / "out.dcm", plain_source.labels, plain_source.series, classes)
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    out = pydicom.dcmread(tmp_path / "out.dcm")
    assert str(out.PatientName) == dicoms.NAME
    assert out.PatientID == dicoms.ID
    named = [item.SegmentLabel for item in out.SegmentSequence] if kind == "seg" else [item.ROIName for item in out.StructureSetROISequence]
    assert named == classes.names
    if kind == "seg":
        assert_comes_back(tmp_path / "out.dcm", plain_source, classes)


def code_of(item, keyword):
    (code,) = item[keyword].value
    return code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning


def test_segments_say_what_they_are(plain_source, tmp_path):
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES)
    liver, kidney, mass = pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence
    assert [item.SegmentNumber for item in (liver, kidney, mass)] == [1, 2, 3]
    assert [item.SegmentLabel for item in (liver, kidney, mass)] == CLASSES.names
    assert code_of(liver, "SegmentedPropertyCategoryCodeSequence") == ("SCT", "123037004", "Anatomical Structure")
    assert code_of(liver, "SegmentedPropertyTypeCodeSequence") == ("SCT", "10200004", "Liver")
    assert "AnatomicRegionSequence" not in liver
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    assert kind.CodeValue == "64033007"
    assert code_of(kind, "SegmentedPropertyTypeModifierCodeSequence") == ("SCT", "7771000", "Left")
    assert code_of(mass, "SegmentedPropertyTypeCodeSequence") == ("SCT", "4147007", "Mass")
    (region,) = mass.AnatomicRegionSequence
    assert (region.CodingSchemeDesignator, region.CodeValue) == ("SCT", "64033007")
    assert code_of(region, "AnatomicRegionModifierSequence") == ("SCT", "24028007", "Right")


def test_terminology_comes_back(plain_source, tmp_path):
    """Category, type, region and modifiers; the names of Slicer's own lists are not in DICOM."""
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES)
    back = read_seg(tmp_path / "out.dcm", plain_source.geometry).classes
    for ours, theirs in zip(CLASSES.segments, back.segments, strict=True):
        assert theirs.tags["TerminologyEntry"].split("~")[1:4] == ours.tags["TerminologyEntry"].split("~")[1:4]
        assert theirs.tags["TerminologyEntry"].split("~")[5:] == ours.tags["TerminologyEntry"].split("~")[5:]


def test_segments_say_who_made_them(plain_source, tmp_path):
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES)
    seg = pydicom.dcmread(tmp_path / "out.dcm")
    for item in seg.SegmentSequence:
        assert (item.SegmentAlgorithmType, item.SegmentAlgorithmName) == ("SEMIAUTOMATIC", "SparseSegSlicer")
        (algorithm,) = item.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("SparseSegSlicer", __version__)
    assert seg.Manufacturer
    assert UID(seg.SOPInstanceUID).is_valid


def lab_of(rgb):
    """CIELab (D65, as Slicer and dcmqi compute it) of RGB in 0..1, as DICOM's three numbers of 16 bits."""
    linear = np.where(np.array(rgb) > 0.04045, ((np.array(rgb) + 0.055) / 1.055) ** 2.4, np.array(rgb) / 12.92)
    xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]) @ linear
    x, y, z = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in xyz / (0.950456, 1.0, 1.088754))
    light, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    return light * 65535 / 100, (a + 128) * 65535 / 255, (b + 128) * 65535 / 255


def test_colours(plain_source, tmp_path):
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES)
    for item, segment in zip(pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence, CLASSES.segments, strict=True):
        rounded = [round(255 * v) / 255 for v in segment.color]
        np.testing.assert_allclose(list(item.RecommendedDisplayCIELabValue), lab_of(rounded), atol=0.003 * 65535)
        rgb = hd.color.CIELabColor.from_dicom_value(list(item.RecommendedDisplayCIELabValue)).to_rgb()
        np.testing.assert_allclose(np.array(rgb) / 255, segment.color, atol=1.5 / 255)


@pytest.mark.parametrize("rgb", [(0, 0, 0), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (0.5, 0.5, 0.5)])
def test_the_ends_of_colour_come_back(plain_source, tmp_path, rgb):
    classes = ClassTable((Segment("a", "a", rgb),))
    write_seg(tmp_path / "out.dcm", (plain_source.labels == 1).astype(np.uint8), plain_source.series, classes)
    back = read_seg(tmp_path / "out.dcm", plain_source.geometry).classes
    np.testing.assert_allclose(back.segments[0].color, rgb, atol=1.5 / 255)


@pytest.mark.parametrize("tag", [None, "", "nonsense", "~^^~^^~^^~~^^~^^", entry("SCT^123037004^Anatomical Structure", "^^")])
def test_without_terminology(plain_source, tmp_path, tag):
    """A sound default, and a warning that names the segments."""
    segments = (CLASSES.segments[0], Segment("x", "no terms", (0.5, 0.5, 0.5), {} if tag is None else {"TerminologyEntry": tag}), CLASSES.segments[2])
    (warning,) = write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, ClassTable(segments))
    assert "no terms" in warning
    assert CLASSES.names[0] not in warning
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    item = pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence[1]
    for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
        scheme, value, meaning = code_of(item, keyword)
        assert scheme == "SCT"
        assert value
        assert meaning


def test_long_texts(plain_source, tmp_path):
    """DICOM's LO holds 64 characters."""
    long = "lobus hepatis sinister cum vasis et ductibus atque vesica biliaris " * 2
    tag = entry(f"SCT^123037004^{long}", f"99LOCAL^12345678^{long}")
    classes = ClassTable((Segment(long, long, (0.5, 0.5, 0.5), {"TerminologyEntry": tag}),))
    labels = (plain_source.labels == 1).astype(np.uint8)
    write_seg(tmp_path / "seg.dcm", labels, plain_source.series, classes)
    write_rtstruct(tmp_path / "rt.dcm", labels, plain_source.series, classes)
    assert dicoms.dciodvfy(tmp_path / "seg.dcm") == []
    assert dicoms.dciodvfy(tmp_path / "rt.dcm") == []


@pytest.mark.parametrize("empty", [(1,), (2,), (3,), (1, 3)])
@pytest.mark.parametrize("kind", ["binary", "fractional"])
def test_segments_without_voxels(plain_source, tmp_path, kind, empty):
    """They stay in the list, with no frame, and the others keep their numbers."""
    labels = np.where(np.isin(plain_source.labels, empty), 0, plain_source.labels).astype(np.uint8)
    assert write_seg(tmp_path / "seg.dcm", labels, plain_source.series, CLASSES, None if kind == "binary" else np.full_like(labels, 30)) == []
    assert dicoms.dciodvfy(tmp_path / "seg.dcm") == []
    back = read_seg(tmp_path / "seg.dcm", plain_source.geometry)
    assert back.classes.names == CLASSES.names
    np.testing.assert_array_equal(back.annotation, as_annotation(labels))
    write_rtstruct(tmp_path / "rt.dcm", labels, plain_source.series, CLASSES)
    assert dicoms.dciodvfy(tmp_path / "rt.dcm") == []


@pytest.mark.slow
def test_many_segments(plain_source, tmp_path):
    labels = (np.arange(np.prod(SHAPE)) % 255).reshape(SHAPE).astype(np.uint8)
    classes = ClassTable.numbered(254)
    write_seg(tmp_path / "seg.dcm", labels, plain_source.series, classes)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", plain_source.geometry).annotation, as_annotation(labels))


@pytest.mark.parametrize("writer", [write_seg, write_rtstruct])
def test_what_cannot_be_written(plain_source, tmp_path, writer):
    labels, series = plain_source.labels, plain_source.series
    with pytest.raises(InputError, match="empty"):
        writer(tmp_path / "out.dcm", np.zeros_like(labels), series, CLASSES)
    with pytest.raises(InputError, match="do not fit"):
        writer(tmp_path / "out.dcm", labels[:-1], series, CLASSES)
    with pytest.raises(InputError):
        writer(tmp_path / "out.dcm", labels, series, ClassTable(CLASSES.segments[:2]))
    with pytest.raises(OutputError):
        writer(tmp_path / "gone" / "out.dcm", labels, series, CLASSES)
    assert list(tmp_path.iterdir()) == []


def test_source_gone_meanwhile(plain_source, tmp_path):
    shutil.copytree(plain_source.folder, tmp_path / "dicom")
    series = read_volume(tmp_path / "dicom").series
    series.frames[2].file.unlink()
    with pytest.raises(InputError, match=series.frames[2].file.name):
        write_seg(tmp_path / "out.dcm", plain_source.labels, series, CLASSES)


# ---------------------------------------------------------------- sources as they come


def changed_source(folder, change):
    stored = np.random.default_rng(2).integers(-500, 500, SHAPE).astype(np.int16)
    slices = dicoms.make_slices(stored, grid())
    for dataset in slices:
        change(dataset)
    with pydicom.config.disable_value_validation():
        dicoms.save_slices(slices, folder)
    return Source(folder, read_volume(folder), hard_labels())


def without(*keywords):
    def change(dataset):
        for keyword in keywords:
            del dataset[keyword]

    return change


def setting(**values):
    def change(dataset):
        with pydicom.config.disable_value_validation():
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

    return change


STRANGE = {
    "no patient": without("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    "no study": without("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    "no slice thickness": without("SliceThickness"),
    "empty slice thickness": setting(SliceThickness=""),
    "no position reference": without("PositionReferenceIndicator"),
    "no manufacturer": without("Manufacturer"),
    "no patient's position": without("PatientPosition"),
    "no series number": without("SeriesNumber"),
    "empty series number": setting(SeriesNumber=""),
    "no instance number": without("InstanceNumber"),
    "no frame of reference": without("FrameOfReferenceUID"),
    "no character set": lambda dataset: (without("SpecificCharacterSet")(dataset), setting(PatientName="A^B", PatientID="1")(dataset)),
    "two character sets": setting(SpecificCharacterSet=["", "ISO 2022 IR 100"]),
    "Japanese": setting(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎", PatientID="1", StudyDescription="x"),
    "unknown character set": setting(SpecificCharacterSet="LATIN", PatientName="A^B", PatientID="1"),
    "odd age": setting(PatientAge="55"),
    "odd dates": setting(StudyDate="2026.01.02", StudyTime="10:11:12", PatientBirthDate="unknown"),
    "long name": setting(PatientName="N" * 100),
    "long ID": setting(PatientID="I" * 100, AccessionNumber="A" * 40),
    "odd sex": setting(PatientSex="male"),
    "leading zeros in UIDs": setting(StudyInstanceUID="1.2.003.04"),
    "other modality": setting(Modality="CR"),
}


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
@pytest.mark.parametrize("name", STRANGE)
def test_strange_sources(tmp_path, name, kind, caplog, recwarn):
    """What scanners and programs for privacy leave behind is copied as it is; it never stops an export, nor gets into a log."""
    source = changed_source(tmp_path / "dicom", STRANGE[name])
    recwarn.clear()
    caplog.clear()
    writer = {"seg": write_seg, "rtstruct": write_rtstruct}[kind]
    writer(tmp_path / "out.dcm", source.labels, source.series, CLASSES)
    assert not [str(warning.message) for warning in recwarn.list]
    assert "Müller" not in caplog.text
    with pydicom.config.disable_value_validation():
        out, header = pydicom.dcmread(tmp_path / "out.dcm"), source.headers[0]
        for keyword in PATIENT_AND_STUDY:
            assert (out.get(keyword) or "") == (header.get(keyword) or ""), keyword
    if kind == "seg":
        assert_comes_back(tmp_path / "out.dcm", source)
    else:
        assert_contours_are(tmp_path / "out.dcm", source, CLASSES)


def test_one_enhanced_file_for_each_slice(tmp_path):
    """Written, or refused in words."""
    for k in range(SHAPE[0]):
        place = grid().matrix
        place[:3, 3] += place[:3, 2] * k
        stored = np.random.default_rng(k).integers(-500, 500, (1, *SHAPE[1:])).astype(np.int16)
        dataset = dicoms.make_enhanced(stored, Geometry((1, *SHAPE[1:]), tuple(map(tuple, place))))
        dataset.SOPInstanceUID = dicoms.uid(f"slice {k}")
        (tmp_path / "dicom").mkdir(exist_ok=True)
        dicoms.save(dataset, tmp_path / "dicom" / f"{k}.dcm")
    source = Source(tmp_path / "dicom", read_volume(tmp_path / "dicom"), hard_labels())
    try:
        write_seg(tmp_path / "out.dcm", source.labels, source.series, CLASSES)
    except InputError:
        return
    assert_comes_back(tmp_path / "out.dcm", source)


# ---------------------------------------------------------------- fractional


def some_uncertainty():
    return np.random.default_rng(5).integers(0, 256, SHAPE).astype(np.uint8)


def test_fractional(source, tmp_path):
    """Probabilities from one half up where the label is, nothing elsewhere."""
    uncertainty = some_uncertainty()
    write_seg(tmp_path / "out.dcm", source.labels, source.series, CLASSES, uncertainty)
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    seg, places = pydicom.dcmread(tmp_path / "out.dcm"), places_of(source)
    assert (seg.SegmentationType, seg.SegmentationFractionalType, seg.MaximumFractionalValue) == ("FRACTIONAL", "PROBABILITY", 255)
    seen = np.zeros(SHAPE, np.uint8)
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        k, number = places[reference_of(frame)][0], frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(pixels > 0, source.labels[k] == number)
        inside = pixels > 0
        np.testing.assert_allclose(pixels[inside] / 255, 1 - uncertainty[k][inside] / 255 / 2, atol=1 / 255)
        assert pixels[inside].min() >= 128
        seen[k][inside] = number
    np.testing.assert_array_equal(seen, source.labels)
    assert_comes_back(tmp_path / "out.dcm", source)


def test_highdicom_reads_fractions(plain_source, tmp_path):
    uncertainty = some_uncertainty()
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES, uncertainty)
    seg = hd.seg.segread(tmp_path / "out.dcm")
    pixels = seg.get_pixels_by_source_instance([frame.uid for frame in plain_source.series.frames], assert_missing_frames_are_empty=True)
    expected = (np.arange(1, 4) == plain_source.labels[..., None]) * (1 - uncertainty[..., None] / 510.0)
    np.testing.assert_allclose(pixels, expected, atol=1 / 255)


# ---------------------------------------------------------------- RTSTRUCT


def fill(points, mask):
    """Turns over the voxels of `mask` (rows, columns) whose centres lie within the closed polygon `points` (n, 2), (column, row): even-odd."""
    for (i0, j0), (i1, j1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if j0 == j1:
            continue
        rows = np.arange(max(0, int(np.ceil(min(j0, j1)))), min(mask.shape[0], int(np.ceil(max(j0, j1)))))
        crossings = i0 + (rows - j0) * (i1 - i0) / (j1 - j0)
        for row, crossing in zip(rows, crossings, strict=True):
            mask[row, : max(0, int(np.ceil(crossing)))] ^= True


def filled(contours, source, each_alone):
    """(K, J, I) bool from the items of a Contour Sequence. each_alone: their union; else even-odd over all of a slice."""
    mask = np.zeros(source.geometry.shape_kji, bool)
    to_ijk, places = np.linalg.inv(source.geometry.matrix), places_of(source)
    for contour in contours:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        assert len(points) == contour.NumberOfContourPoints >= 3
        ijk = (np.column_stack([points, np.ones(len(points))]) @ to_ijk.T)[:, :3]
        k = round(float(ijk[0, 2]))
        np.testing.assert_allclose(ijk[:, 2], k, atol=1e-3)
        (image,) = contour.ContourImageSequence
        assert places[image.ReferencedSOPInstanceUID, int(image.get("ReferencedFrameNumber", 1))][0] == k
        own = np.zeros(mask.shape[1:], bool)
        fill(ijk[:, :2], own)
        mask[k] = mask[k] | own if each_alone else mask[k] ^ own
    return mask


def assert_contours_are(path, source, classes, each_alone=True):
    structures = pydicom.dcmread(path)
    rois = {item.ROINumber: item for item in structures.StructureSetROISequence}
    assert [item.ROIName for item in rois.values()] == classes.names
    for c, item in enumerate(structures.ROIContourSequence, start=1):
        assert rois[item.ReferencedROINumber].ROIName == classes.names[c - 1]
        assert list(item.ROIDisplayColor) == [round(255 * v) for v in classes.segments[c - 1].color]
        np.testing.assert_array_equal(filled(item.get("ContourSequence", []), source, each_alone), source.labels == c)


@pytest.mark.parametrize("each_alone", [True, False], ids=["union", "even-odd"])
def test_rtstruct(source, tmp_path, each_alone):
    assert write_rtstruct(tmp_path / "out.dcm", source.labels, source.series, CLASSES) == []
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    assert_contours_are(tmp_path / "out.dcm", source, CLASSES, each_alone)


def test_rtstruct_refers_to_its_series(source, tmp_path):
    write_rtstruct(tmp_path / "out.dcm", source.labels, source.series, CLASSES)
    structures, header = pydicom.dcmread(tmp_path / "out.dcm"), source.headers[0]
    assert (structures.SOPClassUID, structures.Modality) == ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    (frame_of_reference,) = structures.ReferencedFrameOfReferenceSequence
    assert frame_of_reference.FrameOfReferenceUID == header.FrameOfReferenceUID
    (study,) = frame_of_reference.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert (study.ReferencedSOPInstanceUID, series.SeriesInstanceUID) == (header.StudyInstanceUID, header.SeriesInstanceUID)
    assert {item.ReferencedSOPInstanceUID for item in series.ContourImageSequence} == {frame.uid for frame in source.series.frames}
    assert {item.ROIGenerationAlgorithm for item in structures.StructureSetROISequence} == {"SEMIAUTOMATIC"}
    assert {item.ReferencedFrameOfReferenceUID for item in structures.StructureSetROISequence} == {header.FrameOfReferenceUID}
    numbers = [item.ROINumber for item in structures.StructureSetROISequence]
    assert [item.ReferencedROINumber for item in structures.RTROIObservationsSequence] == numbers


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.5, 0.1, 0.9])
def test_rtstruct_of_noise(plain_source, tmp_path, part):
    """Islands in holes in islands, and corners that touch: any mask comes back."""
    noisy = Source(plain_source.folder, plain_source.volume, (np.random.default_rng(3).random(SHAPE) < part).astype(np.uint8))
    classes = ClassTable(CLASSES.segments[:1])
    write_rtstruct(tmp_path / "out.dcm", noisy.labels, noisy.series, classes)
    for each_alone in (True, False):
        assert_contours_are(tmp_path / "out.dcm", noisy, classes, each_alone)


# ---------------------------------------------------------------- the real CT


@pytest.mark.slow
def test_real_ct(ct, tmp_path):
    source, classes = ct
    write_seg(tmp_path / "seg.dcm", source.labels, source.series, classes)
    assert dicoms.dciodvfy(tmp_path / "seg.dcm") == []
    assert_comes_back(tmp_path / "seg.dcm", source, classes)
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    uids = [frame.uid for frame in source.series.frames]
    pixels = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(pixels, source.labels)
    for c, name in enumerate(classes.names, start=1):
        assert seg.get_segment_description(c).segment_label == name
    header = source.headers[0]
    assert seg.SpecificCharacterSet == header.SpecificCharacterSet
    for keyword in PATIENT_AND_STUDY:
        if header.get(keyword) or not keyword.endswith("UID"):  # this series has lost its UIDs
            assert (seg.get(keyword) or "") == (header.get(keyword) or ""), keyword


@pytest.mark.slow
def test_real_ct_fractional(ct, tmp_path):
    source, classes = ct
    uncertainty = (np.arange(source.labels.size) % 256).reshape(source.labels.shape).astype(np.uint8)
    write_seg(tmp_path / "seg.dcm", source.labels, source.series, classes, uncertainty)
    assert dicoms.dciodvfy(tmp_path / "seg.dcm") == []
    assert_comes_back(tmp_path / "seg.dcm", source, classes)


@pytest.mark.slow
def test_real_ct_structures(ct, tmp_path):
    source, classes = ct
    write_rtstruct(tmp_path / "rt.dcm", source.labels, source.series, classes)
    assert dicoms.dciodvfy(tmp_path / "rt.dcm") == []
    structures = pydicom.dcmread(tmp_path / "rt.dcm")
    uids = [frame.uid for frame in source.series.frames]
    for c, item in enumerate(structures.ROIContourSequence, start=1):
        mask = np.zeros(source.labels.shape, bool)
        to_ijk = np.linalg.inv(source.geometry.matrix)
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            ijk = (np.column_stack([points, np.ones(len(points))]) @ to_ijk.T)[:, :3]
            k = uids.index(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)
            np.testing.assert_allclose(ijk[:, 2], k, atol=1e-3)
            fill(ijk[:, :2], mask[k])
        np.testing.assert_array_equal(mask, source.labels == c)


@pytest.mark.slow
def test_results_of_a_series_without_uids_meet(ct, tmp_path):
    """A series that lost its study: said once each time, and all its results are put into one study."""
    source, classes = ct
    if source.headers[0].StudyInstanceUID:
        pytest.skip("this copy of ct-dicom has kept its UIDs")
    outs = []
    for n, writer in enumerate((write_seg, write_rtstruct)):
        remarks = writer(tmp_path / f"{n}.dcm", source.labels, source.series, classes)
        assert any("StudyInstanceUID" in remark for remark in remarks)
        outs.append(pydicom.dcmread(tmp_path / f"{n}.dcm"))
    assert outs[0].StudyInstanceUID == outs[1].StudyInstanceUID
    assert outs[0].SeriesInstanceUID != outs[1].SeriesInstanceUID


# ---------------------------------------------------------------- SEG of other writers


def their_description(number, label, **options):
    tissue = hd.sr.CodedConcept("85756007", "SCT", "Tissue")
    return hd.seg.SegmentDescription(number, label, tissue, tissue, "MANUAL", **options)


def write_theirs(path, source, pixels, kind="BINARY", change=None, **options):
    """A SEG as highdicom's own users write it: `pixels` (K, J, I) numbers, or (K, J, I, segments)."""
    count = pixels.shape[3] if pixels.ndim == 4 else int(pixels.max())
    seg = hd.seg.Segmentation(
        source.headers if len({frame.uid for frame in source.series.frames}) > 1 else source.headers[:1],
        pixels,
        kind,
        [their_description(n, f"theirs {n}") for n in range(1, count + 1)],
        series_instance_uid=hd.UID(),
        series_number=300,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="another",
        manufacturer_model_name="another",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    if change:
        change(seg)
    seg.save_as(path)
    return path


@pytest.mark.parametrize("omit", [True, False], ids=["empty frames left out", "all frames"])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_highdicoms_own(plain_source, tmp_path, kind, omit):
    path = write_theirs(tmp_path / "theirs.dcm", plain_source, plain_source.labels, kind, omit_empty_frames=omit)
    back = read_seg(path, plain_source.geometry)
    np.testing.assert_array_equal(back.annotation, as_annotation(plain_source.labels))
    assert back.classes.names == ["theirs 1", "theirs 2", "theirs 3"]
    assert len(set(back.classes.ids)) == 3


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.5"])
def test_highdicoms_compressed(plain_source, tmp_path, syntax):
    kind = "BINARY" if syntax == "1.2.840.10008.1.2" else "FRACTIONAL"
    path = write_theirs(tmp_path / "theirs.dcm", plain_source, plain_source.labels, kind, transfer_syntax_uid=syntax)
    np.testing.assert_array_equal(read_seg(path, plain_source.geometry).annotation, as_annotation(plain_source.labels))


def test_fractions_count_from_one_half(plain_source, tmp_path):
    fractions = np.random.default_rng(0).random((*SHAPE, 1))
    path = write_theirs(tmp_path / "theirs.dcm", plain_source, fractions, "FRACTIONAL", max_fractional_value=100)
    stored = np.rint(fractions[..., 0] * 100)
    back = read_seg(path, plain_source.geometry)
    np.testing.assert_array_equal(back.annotation, np.where(stored >= 50, 2, 0))


def test_other_segment_numbers(plain_source, tmp_path):
    """Numbers with gaps, as after a segment was deleted, in another order than the list."""
    new = {1: 7, 2: 300, 3: 2}

    def renumber(seg):
        for item in seg.SegmentSequence:
            item.SegmentNumber = new[item.SegmentNumber]
        for frame in seg.PerFrameFunctionalGroupsSequence:
            item = frame.SegmentIdentificationSequence[0]
            item.ReferencedSegmentNumber = new[item.ReferencedSegmentNumber]

    path = write_theirs(tmp_path / "theirs.dcm", plain_source, plain_source.labels, change=renumber)
    back = read_seg(path, plain_source.geometry)
    for c, name in enumerate(back.classes.names, start=1):
        old = int(name.split()[1])
        np.testing.assert_array_equal(back.annotation == c + 1, plain_source.labels == old)


def test_overlapping_segments(plain_source, tmp_path):
    """Voxels that two segments claim are left unlabelled, and counted."""
    pixels = np.zeros((*SHAPE, 2), np.uint8)
    pixels[1:4, 2:10, 2:10, 0] = 1
    pixels[2:5, 5:20, 5:20, 1] = 1
    path = write_theirs(tmp_path / "theirs.dcm", plain_source, pixels)
    back = read_seg(path, plain_source.geometry)
    both = pixels.all(axis=3)
    np.testing.assert_array_equal(back.annotation == 0, ~pixels.any(axis=3) | both)
    np.testing.assert_array_equal(back.annotation == 2, (pixels[..., 0] > 0) & ~both)
    assert back.overlaps == {("theirs 1", "theirs 2"): int(both.sum())}


def test_frames_in_any_order(plain_source, tmp_path):
    def shuffle(seg):
        frames = seg.pixel_array
        order = np.random.default_rng(0).permutation(len(frames))
        seg.PerFrameFunctionalGroupsSequence = [seg.PerFrameFunctionalGroupsSequence[n] for n in order]
        seg.PixelData = np.packbits(frames[order].ravel(), bitorder="little").tobytes()
        seg.PixelData += bytes(len(seg.PixelData) % 2)

    path = write_theirs(tmp_path / "theirs.dcm", plain_source, plain_source.labels, change=shuffle)
    np.testing.assert_array_equal(read_seg(path, plain_source.geometry).annotation, as_annotation(plain_source.labels))


def test_a_colour_outside_rgb(plain_source, tmp_path):
    """Lab holds more colours than screens show; that is no damage."""

    def paint(seg):
        for item in seg.SegmentSequence:
            item.RecommendedDisplayCIELabValue = [60000, 0, 65535]

    path = write_theirs(tmp_path / "theirs.dcm", plain_source, plain_source.labels, change=paint)
    assert all(0 <= v <= 1 for segment in read_seg(path, plain_source.geometry).classes.segments for v in segment.color)


def test_two_segments_of_one_name(plain_source, tmp_path):
    def name(seg):
        for item in seg.SegmentSequence:
            item.SegmentLabel = "organ"

    path = write_theirs(tmp_path / "theirs.dcm", plain_source, plain_source.labels, change=name)
    back = read_seg(path, plain_source.geometry)
    assert back.classes.names == ["organ"] * 3
    np.testing.assert_array_equal(back.annotation, as_annotation(plain_source.labels))


def test_a_background_segment(plain_source, tmp_path):
    """By name, as in a .seg.nrrd."""
    labels = np.where(plain_source.labels == 0, 3, np.where(plain_source.labels == 3, 0, plain_source.labels)).astype(np.uint8)
    path = write_theirs(tmp_path / "theirs.dcm", plain_source, labels)
    back = read_seg(path, plain_source.geometry, background="theirs 3")
    np.testing.assert_array_equal(back.annotation, np.array([0, 2, 3, 1], np.uint8)[labels])
    assert back.classes.names == ["theirs 1", "theirs 2"]
    assert back.classes.background.name == "theirs 3"


def volume_of(source, box):
    """A highdicom volume of a part of the labels: `box` slices in (k, j, i)."""
    start = [s.start or 0 for s in box]
    affine = source.geometry.matrix[:, [2, 1, 0, 3]]
    affine[:3, 3] = (source.geometry.matrix @ (*start[::-1], 1))[:3]
    return hd.Volume(source.labels[box], affine, "PATIENT", frame_of_reference_uid=source.headers[0].FrameOfReferenceUID)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, 1)], ids=["axial", "coronal", "sagittal", "transposed"])
@pytest.mark.parametrize("flip", [(), (0,), (1, 2)], ids=["as is", "k flipped", "rows and columns flipped"])
def test_cropped_and_turned(plain_source, tmp_path, axes, flip):
    """Other programs store the box around the segments only, or planes of another direction: the voxels stay where they are."""
    box = (slice(1, 6), slice(2, 25), slice(3, 38))
    volume = volume_of(plain_source, box).permute_spatial_axes(list(axes))
    if flip:
        volume = volume.flip_spatial(list(flip))
    path = write_theirs(tmp_path / "theirs.dcm", plain_source, volume_as_pixels(volume), **places_of_volume(volume))
    expected = np.zeros(SHAPE, np.uint8)
    expected[box] = as_annotation(plain_source.labels[box])
    np.testing.assert_array_equal(read_seg(path, plain_source.geometry).annotation, expected)


def volume_as_pixels(volume):
    return np.ascontiguousarray(volume.array)


def places_of_volume(volume):
    return {
        "pixel_measures": volume.get_pixel_measures(),
        "plane_orientation": volume.get_plane_orientation(),
        "plane_positions": volume.get_plane_positions(),
    }


def moved(geometry, **change):
    parts = {"spacing": geometry.spacing_ijk_mm, "origin": geometry.origin_lps_mm, "direction": geometry.direction, **change}
    return Geometry.from_axes(change.get("shape", geometry.shape_kji), parts["spacing"], parts["origin"], parts["direction"])


@pytest.mark.parametrize(
    "change",
    [
        {"origin": (-7.0, 3.5, 100.125)},
        {"origin": (-7.25, 3.5, 101.0)},
        {"origin": (92.75, 3.5, 100.125)},
        {"spacing": (0.8, 0.5, 2.5)},
        {"spacing": (0.75, 0.5, 2.6)},
        {"spacing": (0.375, 0.25, 2.5)},
        {"direction": tuple(dicoms.rotation(0, 0, 3).ravel())},
        {"shape": (7, 20, 40)},
    ],
    ids=str,
)
def test_another_grid_is_refused(plain_source, tmp_path, change):
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES)
    with pytest.raises(InputError, match=r"grid|outside"):
        read_seg(tmp_path / "out.dcm", moved(plain_source.geometry, **change))


def test_a_larger_image_is_welcome(plain_source, tmp_path):
    """The SEG of a cropped volume, laid on the whole one."""
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES)
    whole = Geometry.from_axes((9, 34, 50), plain_source.geometry.spacing_ijk_mm, (plain_source.geometry.matrix @ (-6, -1, -2, 1))[:3])
    expected = np.zeros(whole.shape_kji, np.uint8)
    expected[2:9, 1:31, 6:46] = as_annotation(plain_source.labels)
    np.testing.assert_array_equal(read_seg(tmp_path / "out.dcm", whole).annotation, expected)


def test_what_is_no_segmentation(plain_source, tmp_path):
    with pytest.raises(InputError, match="no DICOM segmentation"):
        read_seg(plain_source.series.frames[0].file, plain_source.geometry)
    (tmp_path / "text.dcm").write_text("no DICOM at all " * 20, encoding="utf-8")
    with pytest.raises(InputError):
        read_seg(tmp_path / "text.dcm", plain_source.geometry)
    with pytest.raises(InputError):
        read_seg(tmp_path / "gone.dcm", plain_source.geometry)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.999])
def test_a_cut_segmentation_is_refused(plain_source, tmp_path, part):
    write_seg(tmp_path / "out.dcm", plain_source.labels, plain_source.series, CLASSES)
    dicoms.cut_short(tmp_path / "out.dcm", part)
    with pytest.raises(InputError):
        read_seg(tmp_path / "out.dcm", plain_source.geometry)


def test_a_segmentation_of_nothing(plain_source, tmp_path):
    def empty(seg):
        seg.SegmentSequence = []

    path = write_theirs(tmp_path / "theirs.dcm", plain_source, plain_source.labels, change=empty)
    with pytest.raises((AnnotationError, InputError)):
        read_seg(path, plain_source.geometry)


# ---------------------------------------------------------------- dcmqi


def dcmqi(name, *arguments):
    package = pytest.importorskip("dcmqi", reason="dcmqi is not installed (pip install dcmqi)")
    program = next(Path(package.__file__).parent.joinpath("bin").glob(f"{name}*"))
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, encoding="utf-8", errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def dcmqi_metadata(classes):
    def coded(text):
        scheme, value, meaning = text.split("^")
        return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}

    segments = []
    for number, segment in enumerate(classes.segments, start=1):
        parts = segment.tags["TerminologyEntry"].split("~")
        segments.append(
            {
                "labelID": number,
                "SegmentDescription": segment.id,
                "SegmentLabel": f"{segment.id} of dcmqi",
                "SegmentAlgorithmType": "MANUAL",
                "SegmentedPropertyCategoryCodeSequence": coded(parts[1]),
                "SegmentedPropertyTypeCodeSequence": coded(parts[2]),
                "recommendedDisplayRGBValue": [round(255 * v) for v in segment.color],
            }
        )
    head = {"ContentCreatorName": "Reader^One", "SeriesDescription": "theirs", "SeriesNumber": "300", "InstanceNumber": "1", "BodyPartExamined": ""}
    return {**head, "ClinicalTrialSeriesID": "1", "ClinicalTrialTimePointID": "1", "segmentAttributes": [segments]}


@pytest.mark.parametrize("empty", [1, 2, 3])
def test_dcmqi_reads_a_list_with_an_empty_segment(plain_source, tmp_path, empty):
    labels = np.where(plain_source.labels == empty, 0, plain_source.labels).astype(np.uint8)
    write_seg(tmp_path / "out.dcm", labels, plain_source.series, CLASSES)
    dcmqi("segimage2itkimage", "--inputDICOM", tmp_path / "out.dcm", "--outputDirectory", tmp_path, "-t", "nrrd")
    voxels = [int((sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{value}.nrrd"))) > 0).sum()) for value in (1, 2, 3)]
    assert voxels == [int((labels == value).sum()) for value in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_dcmqi_writes_and_we_read(source, tmp_path, kind):
    if source.headers[0].SOPClassUID in dicoms.ENHANCED_CLASSES.values() or "file_meta" not in vars(source.headers[0]):
        pytest.skip("dcmqi takes single-frame Part 10 files")
    write_volume(tmp_path / "labels.nrrd", source.labels, source.geometry)
    (tmp_path / "meta.json").write_text(json.dumps(dcmqi_metadata(CLASSES)), encoding="utf-8")
    arguments = ["--inputImageList", tmp_path / "labels.nrrd", "--inputDICOMDirectory", source.folder, "--inputMetadata", tmp_path / "meta.json"]
    dcmqi("itkimage2segimage", *arguments, "--outputDICOM", tmp_path / "theirs.dcm", "--segmentationType", kind)
    back = read_seg(tmp_path / "theirs.dcm", source.geometry)
    np.testing.assert_array_equal(back.annotation, as_annotation(source.labels))
    assert back.classes.names == [f"{segment.id} of dcmqi" for segment in CLASSES.segments]
    for ours, theirs in zip(CLASSES.segments, back.classes.segments, strict=True):
        assert theirs.tags["TerminologyEntry"].split("~")[1:3] == ours.tags["TerminologyEntry"].split("~")[1:3]
        np.testing.assert_allclose(theirs.color, ours.color, atol=3 / 255)


def test_we_write_and_dcmqi_reads(source, tmp_path):
    classes = CLASSES.with_names(["liver", "kidney", "mass"])  # dcmqi knows no character set but UTF-8
    write_seg(tmp_path / "out.dcm", source.labels, source.series, classes)
    (tmp_path / "back").mkdir()
    arguments = ["--inputDICOM", tmp_path / "out.dcm", "--outputDirectory", tmp_path / "back", "--outputType", "nrrd", "--mergeSegments"]
    dcmqi("segimage2itkimage", *arguments)
    about = json.loads(next((tmp_path / "back").glob("*.json")).read_text(encoding="utf-8"))
    (merged,) = (tmp_path / "back").glob("*.nrrd")
    volume = read_volume(merged)
    values = {item["labelID"]: item["SegmentLabel"] for group in about["segmentAttributes"] for item in group}
    assert list(values.values()) == classes.names
    first = np.linalg.solve(source.geometry.matrix, [*volume.geometry.origin_lps_mm, 1])[:3]
    np.testing.assert_allclose(volume.geometry.matrix[:3, :3], source.geometry.matrix[:3, :3], atol=1e-4)
    k = round(float(first[2]))
    np.testing.assert_allclose(first, (0, 0, k), atol=1e-3)
    expected = source.labels[k : k + len(volume.array)]
    np.testing.assert_array_equal(volume.array, expected)
    assert np.count_nonzero(expected) == np.count_nonzero(source.labels)


# ---------------------------------------------------------------- command line


def sparseseg(*arguments):
    return subprocess.run([sys.executable, "-m", "sparseseg", *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("given", ["seg.nrrd", "label map", "SEG"])
def test_export(plain_source, tmp_path, given):
    if given == "SEG":
        segmentation = tmp_path / "in.dcm"
        write_seg(segmentation, plain_source.labels, plain_source.series, CLASSES)
    elif given == "label map":
        segmentation = tmp_path / "in.nii.gz"
        write_volume(segmentation, plain_source.labels, plain_source.geometry)
    else:
        segmentation = tmp_path / "in.seg.nrrd"
        write_segmentation(segmentation, plain_source.labels, plain_source.geometry, CLASSES)
    done = sparseseg("export", segmentation, plain_source.folder, "-o", tmp_path / "out.dcm")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out.dcm")
    assert ("terminology" in done.stderr) == (given == "label map")
    for secret in ("Müller", dicoms.ID):
        assert secret not in done.stdout + done.stderr
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    back = read_seg(tmp_path / "out.dcm", plain_source.geometry)
    np.testing.assert_array_equal(back.annotation, as_annotation(plain_source.labels))
    if given != "label map":
        assert back.classes.names == CLASSES.names
        assert back.classes.ids == CLASSES.ids


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fractional", "rtstruct"])
def test_export_of_other_kinds(plain_source, tmp_path, kind):
    write_segmentation(tmp_path / "in.seg.nrrd", plain_source.labels, plain_source.geometry, CLASSES)
    write_volume(tmp_path / "unsure.nrrd", some_uncertainty(), plain_source.geometry)
    options = ["--uncertainty", tmp_path / "unsure.nrrd"] if kind == "fractional" else []
    done = sparseseg("export", tmp_path / "in.seg.nrrd", plain_source.folder, "-o", tmp_path / "out.dcm", "--dicom", kind, *options)
    assert done.returncode == 0, done.stderr
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    out = pydicom.dcmread(tmp_path / "out.dcm")
    assert out.get("SegmentationType", out.Modality) == kind.upper()
    if kind == "rtstruct":
        assert_contours_are(tmp_path / "out.dcm", plain_source, CLASSES)


@pytest.mark.slow
def test_export_refuses(plain_source, tmp_path):
    write_segmentation(tmp_path / "in.seg.nrrd", plain_source.labels, plain_source.geometry, CLASSES)
    write_segmentation(tmp_path / "other.seg.nrrd", plain_source.labels, moved(plain_source.geometry, spacing=(1, 1, 1)), CLASSES)
    write_volume(tmp_path / "image.nrrd", plain_source.volume.array, plain_source.geometry)
    out = ["-o", tmp_path / "out.dcm"]
    for arguments in (
        [tmp_path / "other.seg.nrrd", plain_source.folder, *out],
        [tmp_path / "in.seg.nrrd", tmp_path / "image.nrrd", *out],
        [tmp_path / "in.seg.nrrd", plain_source.folder, *out, "--dicom", "fractional"],
        [tmp_path / "in.seg.nrrd", plain_source.folder, "-o", tmp_path / "out.nrrd"],
        [tmp_path / "in.seg.nrrd", plain_source.folder, *out, "--series", "1.2.3"],
        [tmp_path / "gone.seg.nrrd", plain_source.folder, *out],
        [tmp_path / "in.seg.nrrd", plain_source.folder, "-o", plain_source.series.frames[0].file],
    ):
        done = sparseseg("export", *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out.dcm").exists()


@pytest.mark.slow
def test_import(plain_source, tmp_path):
    write_seg(tmp_path / "in.dcm", plain_source.labels, plain_source.series, CLASSES)
    done = sparseseg("import", tmp_path / "in.dcm", plain_source.folder, "-o", tmp_path / "out.seg.nrrd")
    assert done.returncode == 0, done.stderr
    back = read_annotation(tmp_path / "out.seg.nrrd", plain_source.geometry)
    np.testing.assert_array_equal(back.annotation, as_annotation(plain_source.labels))
    assert back.classes.names == CLASSES.names
    assert [segment.tags["TerminologyEntry"].split("~")[2] for segment in back.classes.segments] == [
        "SCT^10200004^Liver",
        "SCT^64033007^Kidney",
        "SCT^4147007^Mass",
    ]


@pytest.mark.slow
def test_segment_to_dicom(plain_source, tmp_path):
    """From the archive's folder and strokes to a SEG, an RTSTRUCT of the job, and not a word of the patient in the job."""
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[[2, 3, 5]] = plain_source.labels[[2, 3, 5]] + 1
    from sparseseg.io.files import write_annotation

    write_annotation(tmp_path / "strokes.seg.nrrd", strokes, plain_source.geometry, CLASSES)
    arguments = ["-o", tmp_path / "out.dcm", "--dicom", "fractional", "--job", tmp_path / "job", "--steps", "4", "--device", "cpu"]
    done = sparseseg("segment", plain_source.folder, tmp_path / "strokes.seg.nrrd", *arguments)
    assert done.returncode == 0, done.stderr
    assert dicoms.dciodvfy(tmp_path / "out.dcm") == []
    out = pydicom.dcmread(tmp_path / "out.dcm")
    assert out.SegmentationType == "FRACTIONAL"
    assert str(out.PatientName) == dicoms.NAME
    dense = np.load(tmp_path / "job" / "dense.npy") if (tmp_path / "job" / "dense.npy").exists() else None
    if dense is not None:
        np.testing.assert_array_equal(read_seg(tmp_path / "out.dcm", plain_source.geometry).annotation, as_annotation(dense))
    done = sparseseg("export", tmp_path / "job", plain_source.folder, "-o", tmp_path / "rt.dcm", "--dicom", "rtstruct")
    assert done.returncode == 0, done.stderr
    secrets = [text.encode(encoding) for text in ("Müller", "Jürgen", dicoms.ID) for encoding in ("latin-1", "utf-8")]
    for path in (tmp_path / "job").rglob("*"):
        if path.is_file():
            assert not [secret for secret in secrets if secret in path.read_bytes()], path.name
