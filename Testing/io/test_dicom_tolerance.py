"""Headers as they come from the field: whatever an element holds, the series is read, and can then be written on, or is refused in a sentence.

Slices are varied one against another: what differs between them is what programs stumble over.
"""

import os
import shutil
import sys
import traceback

import numpy as np
import pytest

import dicoms
from grids import AXIAL, names_in
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import InputError, SparseSegError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import check_possible, find_series, read_annotation, read_dense, read_volume, write_dicom, write_segmentation
from sparseseg.io.export import KINDS, Dense

pydicom = dicoms.pydicom
from pydicom.dataelem import RawDataElement  # noqa: E402

SHAPE = (5, 12, 16)
GEOMETRY = Geometry(SHAPE, AXIAL.ijk_to_lps)
STORED = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[1:4, 2:9, 3:12], LABELS[2:, 5:7, 5:9] = 1, 2
CLASSES = ClassTable.numbered(2)


def raw(dataset, keyword, value, vr=None):
    """An element's bytes as they stand in a file."""
    tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword))
    vr = vr or pydicom.datadict.dictionary_VR(tag).replace("US or SS", "SS")
    dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def written(folder, change=lambda k, dataset: None):
    """A series whose slices `change` may alter, each with its number k."""
    slices = dicoms.make_slices(STORED, GEOMETRY)
    with pydicom.config.disable_value_validation():
        for k, dataset in enumerate(slices):
            change(k, dataset)
        dicoms.save_slices(slices, folder)
    return folder


def assert_exports(folder, path, kind="seg", remark=""):
    """That the series, as it is, takes a result of this kind and gives it back; the remarks."""
    image = read_volume(folder)
    check_possible(kind, image.series, folder)
    remarks = write_dicom(path, kind, Dense(LABELS, CLASSES, np.zeros(SHAPE, np.uint8)), image.series)
    back = read_annotation(path, image.geometry, series=image.series)
    assert np.array_equal(np.maximum(back.annotation, 1) - 1, LABELS)
    assert back.remarks == ()
    assert remark in " ".join(remarks)
    return remarks


# ---------------------------------------------------------------- broken ties and numbers


def each_its_own(name):
    return lambda k, dataset: setattr(dataset, name, dicoms.uid(f"{name} {k}"))


TIES = {name: each_its_own(name) for name in ("FrameOfReferenceUID", "StudyInstanceUID")}
NUMBERS = {
    "orientation in the ninth digit": lambda k, d: setattr(d, "ImageOrientationPatient", ["1", "0", f"{k % 2 * 1e-9:.9f}", "0", "1", "0"]),
    "spacing in the sixth digit": lambda k, d: setattr(d, "PixelSpacing", [f"{0.75 + k % 2 * 1e-6:.6f}", "0.5"]),
    "thickness with a comma": lambda k, d: raw(d, "SliceThickness", b"2,0 "),
    "thickness with a unit": lambda k, d: raw(d, "SliceThickness", b"2 mm"),
    "series number with a letter": lambda k, d: raw(d, "SeriesNumber", b"3A"),
    "large series number": lambda k, d: raw(d, "SeriesNumber", b"2147483647"),
    "thickness only of some": lambda k, d: d.__delattr__("SliceThickness") if k % 2 else None,
    "position with commas": lambda k, d: raw(d, "ImagePositionPatient", f"10,0\\-20\\{30 + 2 * k},0".encode()),
    "empty modality": lambda k, d: setattr(d, "Modality", ""),
    "dates of another form": lambda k, d: raw(d, "StudyDate", b"01.02.20"),
    "patient's weight in words": lambda k, d: raw(d, "PatientWeight", b"80 kg "),
    "instance numbers with letters": lambda k, d: raw(d, "InstanceNumber", f"{k}A".encode()),
}


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
@pytest.mark.parametrize("name", TIES)
def test_a_series_whose_ties_are_broken_takes_a_result(tmp_path, name, kind):
    assert_exports(written(tmp_path / "série", TIES[name]), tmp_path / "out.dcm", kind, f"5 different {name}s")


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_out_of_form(tmp_path, name, kind):
    assert_exports(written(tmp_path / "s", NUMBERS[name]), tmp_path / "out.dcm", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back(tmp_path, kind):
    assert_exports(written(tmp_path / "s"), tmp_path / "out.dcm", kind)


def test_what_a_result_cannot_refer_to_is_refused_before_work(tmp_path):
    folder = written(tmp_path / "s", lambda k, d: setattr(d, "SOPInstanceUID", dicoms.uid("same")))
    with pytest.raises(InputError, match="the same SOP Instance UID, so a DICOM result cannot refer to them"):
        check_possible("seg", read_volume(folder).series, folder)


# ---------------------------------------------------------------- any element, anyhow

SPOILT = {
    "absent": None,
    "empty": b"",
    "blank": b"  ",
    "doubled": b"1\\2\\3\\4\\5\\6\\7\\8",
    "words": b"not a number",
    "comma": b"1,5\\2,5\\3,5\\0\\1\\0 ",
    "bytes": b"\xff\xfe\x00\x80",
    "huge": b"1e99\\1e99\\1e99\\1e99\\1e99\\1e99",
    "not a number": b"NaN\\NaN\\NaN\\NaN\\NaN\\NaN",
}
ELEMENTS = sorted(element.keyword for element in dicoms.make_slices(STORED, GEOMETRY)[0] if element.keyword != "PixelData")


@pytest.mark.slow
@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("everywhere", [True, False], ids=["every slice", "one slice"])
@pytest.mark.parametrize("keyword", [*ELEMENTS, "PixelPaddingValue", "ImageType", "NumberOfFrames"])
def test_no_element_can_do_more_than_be_refused(tmp_path, keyword, everywhere, spoil):
    def change(k, dataset):
        if everywhere or k == 2:
            if SPOILT[spoil] is None:
                dataset._dict.pop(pydicom.datadict.tag_for_keyword(keyword), None)
            else:
                raw(dataset, keyword, SPOILT[spoil])

    slices = dicoms.make_slices(STORED, GEOMETRY)
    paths = [tmp_path / f"{k}.dcm" for k in range(len(slices))]
    with pydicom.config.disable_value_validation():
        for k, (dataset, path) in enumerate(zip(slices, paths, strict=True)):
            dicoms.save(dataset, path)
            stored = pydicom.dcmread(path)
            change(k, stored)
            try:
                stored.save_as(path)
            except ValueError:
                pytest.skip("the writer of these tests cannot write that")
    try:
        image = read_volume(tmp_path)
        for kind in ("seg", "rtstruct"):
            check_possible(kind, image.series, tmp_path)
    except SparseSegError as error:
        assert error.sentence.endswith(".")
        assert dicoms.ID not in str(error)
        return
    (tmp_path / "out").mkdir()
    for kind in ("seg", "rtstruct"):
        assert_exports_again(tmp_path / "out" / f"{kind}.dcm", kind, image)


def assert_exports_again(path, kind, image):
    try:
        write_dicom(path, kind, Dense(LABELS, CLASSES), image.series)
    except SparseSegError:
        pytest.fail(f"what was possible before the work is not after it: {traceback.format_exc()}")


def test_an_element_that_is_no_number_is_named_with_its_value(tmp_path):
    folder = written(tmp_path / "s", lambda k, d: raw(d, "RescaleSlope", b"one ") if k == 3 else None)
    with pytest.raises(InputError, match=r"RescaleSlope of 0004\.dcm is 'one', which is no number"):
        read_volume(folder)


# ---------------------------------------------------------------- nothing is dropped without a word


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("which", ["last", "all"])
def test_a_link_to_nothing_is_refused(tmp_path, which):
    folder = written(tmp_path / "s")
    for file in sorted(folder.iterdir())[-1 if which == "last" else 0 :]:
        file.unlink()
        file.symlink_to(tmp_path / "gone" / file.name)
    with pytest.raises(InputError, match=r"000\d\.dcm in s is a link to a file that is not there"):
        read_volume(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_are_followed_also_of_folders(tmp_path):
    store = written(tmp_path / "store")
    folder = tmp_path / "s"
    (folder / "below").mkdir(parents=True)
    for n, file in enumerate(sorted(store.iterdir())):
        if n < 2:
            (folder / file.name).symlink_to(file)
        else:
            shutil.move(file, folder / "below" / file.name)
    shutil.move(folder / "below", tmp_path / "elsewhere")
    (folder / "below").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "round").symlink_to(folder, target_is_directory=True)
    assert np.array_equal(read_volume(folder).array, STORED)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user without all rights")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    folder = written(tmp_path / "s")
    sorted(folder.iterdir())[-1].chmod(0)
    with pytest.raises(InputError, match=r"0005\.dcm cannot be read"):
        read_volume(folder)


def test_what_should_be_a_slice_and_is_none(tmp_path):
    folder = written(tmp_path / "s")
    (folder / "0006.dcm").write_bytes(b"")
    (folder / "._0001.dcm").write_bytes(b"from another system" * 20)
    image = read_volume(folder)
    assert image.remarks == ("1 of the files in s is empty and left out (0006.dcm).",)
    (folder / "0005.dcm").write_bytes(bytes(5000))
    with pytest.raises(InputError, match=r"0005\.dcm in s is no DICOM file"):
        read_volume(folder)


def test_copies_of_files_count_once(tmp_path):
    folder = written(tmp_path / "s")
    shutil.copytree(folder, folder / "copy")
    image = read_volume(folder)
    assert np.array_equal(image.array, STORED)
    assert image.remarks == ("5 of the files in s are copies of others, and count once.",)


def test_doubled_slices_are_counted(tmp_path):
    slices = dicoms.make_slices(STORED, GEOMETRY)
    dicoms.save_slices([*slices, *(dicoms.copy_of(one, "later") for one in slices)], tmp_path / "s")
    with pytest.raises(InputError, match=r"10 DICOM slices in s lie at the same position as others \(5 of 5 positions\)"):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize(("distance", "digits"), [(0.3, 2), (0.125, 2), (0.7, 2), (1.25, 1)])
def test_rounded_positions_are_no_missing_slice(tmp_path, distance, digits):
    folder = written(tmp_path / "s", lambda k, d: setattr(d, "ImagePositionPatient", ["10", "-20", f"{30 + distance * k:.{digits}f}"]))
    if digits == 1:  # a tenth of a millimetre is too coarse to tell
        with pytest.raises(InputError, match="mm apart"):
            read_volume(folder)
        return
    assert abs(read_volume(folder).geometry.spacing_kji_mm[0] - distance) < 0.005


def test_mosaics_and_doses_get_their_names(tmp_path):
    folder = written(tmp_path / "s", lambda k, d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]))
    with pytest.raises(InputError, match="is a Siemens mosaic"):
        read_volume(folder)
    with pytest.raises(InputError, match=r"RTDOSE"):
        read_volume(pydicom.data.get_testdata_file("rtdose.dcm"))


@pytest.mark.parametrize("name", ["IM_0001", "1.2.840.113619.2.5", "ANONYM.IMA"])
def test_a_files_name_does_not_matter(tmp_path, name):
    folder = written(tmp_path / "s")
    shutil.copy(folder / "0001.dcm", tmp_path / name)
    with pytest.raises(InputError, match=r"has only one slice .*Give the folder"):
        read_volume(tmp_path / name)
    path = tmp_path / "out.dcm"
    assert_exports(folder, path)
    shutil.copy(path, tmp_path / f"SEG{name}")
    assert np.count_nonzero(read_annotation(tmp_path / f"SEG{name}", GEOMETRY).annotation) == np.count_nonzero(LABELS)


def test_a_series_without_its_uid_is_one_series(tmp_path):
    folder = written(tmp_path / "s", lambda k, d: d.__delattr__("SeriesInstanceUID"))
    image = read_volume(folder)
    assert np.array_equal(image.array, STORED)
    assert "no SeriesInstanceUID" in image.remarks[0]
    assert_exports(folder, tmp_path / "out.dcm", remark="no SeriesInstanceUID")


# ---------------------------------------------------------------- whose segmentation it is


def another(**values):
    return lambda k, d: [setattr(d, name, value) for name, value in values.items()]


OTHERS = {
    "another patient": ({"PatientID": "X"}, "another patient's"),
    "another frame of reference": ({"FrameOfReferenceUID": "1.2.3"}, "another frame of reference"),
    "both": ({"PatientID": "X", "FrameOfReferenceUID": "1.2.3"}, "another patient's"),
}


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_segmentation_of_someone_else_is_refused(tmp_path, name, kind):
    assert_exports(written(tmp_path / "a"), tmp_path / "a.dcm", kind)
    values, sentence = OTHERS[name]

    def change(k, dataset):
        another(**values)(k, dataset)
        dataset.SOPInstanceUID = dicoms.uid(f"other {k}")

    series = find_series(written(tmp_path / "b", change))
    for read in (read_annotation, read_dense):
        with pytest.raises(InputError, match=rf"a\.dcm is (in )?{sentence}.*--other-patient") as caught:
            read(tmp_path / "a.dcm", series.geometry, series=series)
        assert dicoms.ID not in str(caught.value)
    taken = read_annotation(tmp_path / "a.dcm", series.geometry, series=series, other_patient=True)
    assert "taken as asked" in taken.remarks[0]


def test_another_series_of_the_same_patient_and_frame_is_fine(tmp_path):
    """Before and after contrast; and the same images under another ID, since somebody made them anonymous."""
    assert_exports(written(tmp_path / "a"), tmp_path / "a.dcm")

    def contrast(k, dataset):
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = dicoms.uid("contrast"), dicoms.uid(f"contrast {k}")

    series = find_series(written(tmp_path / "b", contrast))
    assert read_annotation(tmp_path / "a.dcm", series.geometry, series=series).remarks == ()
    series = find_series(written(tmp_path / "c", another(PatientID="ANON")))
    assert "has another patient ID" in read_annotation(tmp_path / "a.dcm", series.geometry, series=series).remarks[0]


# ---------------------------------------------------------------- SEG as it should not be


def seg_file(tmp_path, change):
    assert_exports(written(tmp_path / "s"), tmp_path / "seg.dcm")
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    change(data)
    data.save_as(tmp_path / "seg.dcm")
    return tmp_path / "seg.dcm"


def test_frames_of_segments_that_the_table_lacks_are_counted(tmp_path):
    def change(data):
        del data.SegmentSequence[1]

    read = read_annotation(seg_file(tmp_path, change), GEOMETRY)
    count = int((LABELS == 2).sum())
    assert read.remarks == (f"seg.dcm shows segments that its table does not list, by number: 2 ({count} voxels). They were left out.",)


def test_two_segments_of_one_number_are_refused(tmp_path):
    with pytest.raises(InputError, match="two segments with the same number"):
        read_annotation(seg_file(tmp_path, lambda data: setattr(data.SegmentSequence[1], "SegmentNumber", 1)), GEOMETRY)


def test_segment_number_zero_is_a_segment(tmp_path):
    def change(data):
        data.SegmentSequence[1].SegmentNumber = 0
        for groups in data.PerFrameFunctionalGroupsSequence:
            item = groups.SegmentIdentificationSequence[0]
            item.ReferencedSegmentNumber = 0 if item.ReferencedSegmentNumber == 2 else 1

    read = read_annotation(seg_file(tmp_path, change), GEOMETRY)
    assert sorted(np.bincount(read.annotation.ravel())[2:]) == sorted(np.bincount(LABELS.ravel())[1:])


def test_frames_at_one_position_are_refused(tmp_path):
    def change(data):
        places = [groups.PlanePositionSequence[0] for groups in data.PerFrameFunctionalGroupsSequence]
        for place in places:
            place.ImagePositionPatient = places[0].ImagePositionPatient

    with pytest.raises(InputError, match=r"Frames 1 and 2 of segment 1 of seg\.dcm lie at the same position"):
        read_annotation(seg_file(tmp_path, change), GEOMETRY)


# ---------------------------------------------------------------- free text

TEXTS = ["a\\b", "tab\there", "line\nfeed", "x" * 200, "  spaces  ", "\x00\x1b[31m", "", "=", "éß 肝", "^caret^"]


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
@pytest.mark.parametrize("text", TEXTS)
def test_any_name_and_colour_becomes_dicom(tmp_path, text, kind):
    classes = ClassTable((Segment(f"id {text}", text, (1.7, -0.2, 0.5)), Segment("b", "plain", (0, 0, 1))))
    series = find_series(written(tmp_path / "s"))
    remarks = write_dicom(tmp_path / "out.dcm", kind, Dense(LABELS, classes), series)
    back = read_annotation(tmp_path / "out.dcm", series.geometry)
    name = back.classes.names[0]
    assert len(name) <= 64
    assert "\\" not in name
    assert name.isprintable()
    assert name == text or any("Segment names were cut or cleaned" in remark for remark in remarks) or text == ""
    assert np.allclose(back.classes.segments[0].color, (1, 0, 0.5), atol=0.12)


@pytest.mark.parametrize("text", TEXTS)
def test_any_name_comes_back_from_a_seg_nrrd(tmp_path, text):
    classes = ClassTable((Segment("a", text, (1.7, -0.2, 0.5), {"tag": text}), Segment("b", "plain", (0, 0, 1))))
    write_segmentation(tmp_path / "out.seg.nrrd", LABELS, GEOMETRY, classes)
    back = read_annotation(tmp_path / "out.seg.nrrd", GEOMETRY)
    assert back.classes.segments[0].name == text
    assert names_in(tmp_path) == ["out.seg.nrrd"]
