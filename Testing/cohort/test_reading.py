"""One table of segments for all patients, what each one's labels become in it, and contradictions, with the line of the list."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import patients, write_list

from sparseseg import io
from sparseseg.cohort.patient import Meaning
from sparseseg.cohort.patients import read_list
from sparseseg.cohort.reading import Segments, codes, read_image, read_strokes
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import InputError


def segment(number, name):
    return Segment(f"Segment_{number}", name, (0.5, 0.5, 0.5))


def read(source, complete="none", meaning=Meaning()):  # noqa: B008 - frozen
    """The strokes of each patient, and the table of all."""
    segments, found = Segments(), []
    for patient in read_list(source, annotated=True):
        strokes = read_strokes(patient, read_image(patient)[0], complete, meaning)
        segments.add(strokes, patient)
        found.append(strokes)
    return found, segments


def two(*tables):
    return [replace(phantom, classes=ClassTable(table)) for phantom, table in zip(patients(2), tables, strict=True)]


def test_segments_are_matched_by_name_whatever_their_order_and_ids(tmp_path):
    source = write_list(tmp_path, two((segment(1, "Liver"), segment(2, "Spleen")), (segment(1, " spleen"), segment(2, "LIVER"))))
    (_, second), segments = read(source)
    table = segments.table()
    assert table.names == ["Liver", "Spleen"] and segments.patients("liver") == 2
    assert codes(second.classes, table)[:4].tolist() == [0, 1, 3, 2]


def test_one_id_for_two_names_becomes_two(tmp_path):
    source = write_list(tmp_path, two((segment(1, "Liver"), segment(2, "Spleen")), (segment(1, "Kidney"), segment(2, "Liver"))))
    _, segments = read(source)
    assert segments.table().names == ["Liver", "Spleen", "Kidney"] and segments.table().ids == ["Segment_1", "Segment_2", "Segment_1_2"]
    assert [segments.patients(name) for name in segments.table().names] == [2, 1, 1]


def test_label_maps_are_matched_by_value_also_where_a_patient_lacks_some(tmp_path):
    first, second = patients(2)
    lacking = np.where(first.annotation == 2, 1, first.annotation).astype(np.uint8)
    source = write_list(tmp_path, [replace(first, annotation=lacking), second], ".nrrd")
    (strokes, _), segments = read(source)
    table = segments.table()
    assert table.names == ["segment 1", "segment 2"]  # in the order of values, though the first patient has the second only
    assert np.array_equal(np.take(codes(strokes.classes, table), strokes.annotation), lacking)


def test_complete_slices_are_filled(tmp_path):
    phantom = patients(1)[0]
    strokes = np.where(phantom.annotation > 1, phantom.annotation, 0).astype(np.uint8)
    (found,), _ = read(write_list(tmp_path, [replace(phantom, annotation=strokes)]), "auto")
    assert np.array_equal(found.annotation, phantom.annotation)


def test_other_meanings_of_values(tmp_path):
    phantom = patients(1)[0]
    source = write_list(tmp_path, [phantom], ".nrrd")
    values = np.array([9, 0, 1, 2], np.uint8)[phantom.annotation]  # as nnU-Net has them
    io.write_volume(source.parent / "p0-strokes.nrrd", values, phantom.geometry)
    (found,), _ = read(source, meaning=Meaning("0", 9))
    assert np.array_equal(found.annotation, phantom.annotation) and found.values == (1, 2)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (((segment(1, "a"), segment(2, "b")), (segment(1, "b"), segment(2, "B "))), r"line 3 has two segments called b"),
        (((segment(1, "a"), segment(2, "b")), (segment(1, "background"), segment(2, "b"))), None),
    ],
)
def test_contradictions(tmp_path, tables, said):
    if said is None:  # the second's background is a segment of the first
        first, second = two(*tables)
        first = replace(first, classes=ClassTable((segment(1, "Rest"), segment(2, "b"))))
        second = replace(second, classes=ClassTable((segment(1, "a"), segment(2, "b")), segment(3, "rest")))
        said, phantoms = r"rest is a segment for list\.csv, line 2, and the background for list\.csv, line 3", [first, second]
    else:
        phantoms = two(*tables)
    with pytest.raises(InputError, match=said):
        read(write_list(tmp_path, phantoms))


def test_label_maps_and_names_do_not_mix(tmp_path):
    phantoms = patients(2)
    source = write_list(tmp_path, phantoms)
    io.write_annotation(tmp_path / "p1-strokes.nrrd", phantoms[1].annotation, phantoms[1].geometry, phantoms[1].classes)
    source.write_text(source.read_text(encoding="utf-8").replace("p1-strokes.seg.nrrd", "p1-strokes.nrrd"), encoding="utf-8")
    with pytest.raises(InputError, match=r"line 3 has a label map, and list\.csv, line 2 segments with names"):
        read(source)


def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path):
    phantom = patients(1)[0]
    source = write_list(tmp_path, [phantom])
    io.write_annotation(tmp_path / "p0-strokes.seg.nrrd", np.minimum(phantom.annotation, 1), phantom.geometry, phantom.classes)
    with pytest.raises(InputError, match=r"line 2: No segment has a painted voxel"):
        read(source)
    (tmp_path / "p0.nrrd").unlink()
    with pytest.raises(InputError, match=r"line 2: .*p0\.nrrd"):
        read(source)
    source.write_text("image,annotation\nhttps://pacs/series/1,p0-strokes.seg.nrrd", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: an annotated image is an address"):
        read(source)
