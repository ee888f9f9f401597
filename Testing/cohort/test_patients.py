"""Lists of patients: what each form of list says, what they are called, and what is refused."""

import json

import pytest

from sparseseg.cohort.patients import read_list
from sparseseg.contract.errors import InputError


@pytest.fixture
def table(tmp_path):
    def write(text, name="list.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_table(table, tmp_path):
    first, second = read_list(
        table("image,annotation,name,image2,Age\na/t1.nrrd,a/s.seg.nrrd,P 1,a/t2.nrrd,7\n\nb/t1.nrrd,,,b/t2.nrrd,\n"), annotated=False
    )
    assert first.images == (str(tmp_path / "a/t1.nrrd"), str(tmp_path / "a/t2.nrrd"))
    assert first.annotation == tmp_path / "a/s.seg.nrrd" and second.annotation is None
    assert (first.name, second.name) == ("P_1", "t1")
    assert first.extra == {"age": "7"} and second.extra == {}
    assert (first.place, second.place) == ("list.csv, line 2", "list.csv, line 4")


@pytest.mark.parametrize("text", ["\ufeffimage;annotation\na.nrrd;b.nrrd\n", "annotation\timage\nb.nrrd\ta.nrrd\r\n"])
def test_tables_as_programs_write_them(table, tmp_path, text):
    (patient,) = read_list(table(text), annotated=True)
    assert patient.images == (str(tmp_path / "a.nrrd"),) and patient.annotation == tmp_path / "b.nrrd"


def test_json_lines_and_addresses(table, tmp_path):
    address = "https://pacs.example/studies/1.2/series/1.2.3"
    rows = [{"image": address, "split": "test"}, {"image": ["a.nrrd", "b.nrrd"], "name": 7}]
    with pytest.raises(InputError, match=r"line 1 has 1 and .*line 2 2 images"):
        read_list(table("\n".join(map(json.dumps, rows)), "list.jsonl"), annotated=False)
    (first,) = read_list(table(json.dumps(rows[0]), "list.jsonl"), annotated=False)
    assert first.images == (address,) and first.name == "1.2.3" and first.extra == {"split": "test"}
    (second,) = read_list(table(json.dumps(rows[1]), "list.jsonl"), annotated=False)
    assert second.images == (str(tmp_path / "a.nrrd"), str(tmp_path / "b.nrrd")) and second.name == "7"


def test_names_are_the_fewest_parts_that_differ_whoever_is_annotated(table):
    text = "image,annotation\nstudy/a/image.nrrd,x.nrrd\nstudy/b/image.nrrd,\n"
    assert [p.name for p in read_list(table(text), annotated=False)] == ["a-image", "b-image"]
    assert [p.name for p in read_list(table(text), annotated=True)] == ["a-image"]


@pytest.mark.parametrize(("name", "safe"), [("../../etc", "etc"), ("a/b:c", "a_b_c"), ("nul", "nul_"), ("Žluť", "lu"), ("   ", "a")])
def test_names_are_safe_as_files(table, name, safe):
    assert [p.name for p in read_list(table(f"image,name\na.nrrd,{name}\n"), annotated=False)] == [safe]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column `image`"),
        ("image\n", "lists no patient"),
        ("path\na.nrrd\n", "no column `image`"),
        ("image,annotation\n,b.nrrd\n", "line 2 names no image"),
        ("image\na.nrrd\nb.nrrd,c.nrrd\n", "line 3 has 2 cells"),
        ("image,name\na.nrrd,P\nb.nrrd,p\n", "line 3 and list.csv, line 2 are both called p"),
        ('image\n"a\n', "is no CSV"),
        ('{"image": \n', "line 1 is no JSON"),
        ('{"image": 3}\n', "line 1 names no image"),
        ('{"image": "a"}\n[]\n', "line 2 is no JSON object"),
        ("image,image2,image3,image4,image5,image6,image7,image8,image9\na,a,a,a,a,a,a,a,a\n", "has 9 images"),
    ],
)
def test_what_is_refused(table, text, said):
    with pytest.raises(InputError, match=said):
        read_list(table(text), annotated=False)


def test_a_list_without_annotation_cannot_be_trained_on(table):
    with pytest.raises(InputError, match=r"No patient of .* has an annotation"):
        read_list(table("image\na.nrrd\n"), annotated=True)


def test_one_folder_a_patient(tmp_path):
    touch(
        tmp_path,
        "a/image.nii.gz",
        "a/image2.nrrd",
        "a/annotation.nii.gz",
        "a/truth.nii.gz",
        "b/image.mha",
        "b/image2.mha",
        "b/mine.seg.nrrd",
        "c/notes.txt",
    )
    first, second = read_list(tmp_path, annotated=True)
    assert first.images == (str(tmp_path / "a/image.nii.gz"), str(tmp_path / "a/image2.nrrd"))
    assert (first.name, first.annotation) == ("a", tmp_path / "a/annotation.nii.gz")
    assert (second.name, second.annotation) == ("b", tmp_path / "b/mine.seg.nrrd")
    touch(tmp_path, "b/other.seg.nrrd")
    with pytest.raises(InputError, match="b has 2 annotations"):
        read_list(tmp_path, annotated=True)


def test_one_folder_of_dicom_a_patient(tmp_path):
    touch(tmp_path, "a/dicom/1.dcm")
    (patient,) = read_list(tmp_path, annotated=False)
    assert patient.images == (str(tmp_path / "a/dicom"),) and patient.annotation is None


def test_bids(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T2w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "sub-03/func/x.nii.gz",
    )
    touch(tmp_path, "derivatives/strokes/sub-01/anat/sub-01_dseg.nii.gz")
    first, second = read_list(tmp_path, annotated=False)
    assert (first.name, second.name) == ("sub-01", "sub-02_ses-1")
    assert first.images == (str(tmp_path / "sub-01/anat/sub-01_T1w.nii.gz"),)
    assert first.annotation == tmp_path / "derivatives/strokes/sub-01/anat/sub-01_dseg.nii.gz" and second.annotation is None
    touch(tmp_path, "sub-01/anat/sub-01_run-2_T1w.nii.gz")
    with pytest.raises(InputError, match="has 2 images T1w"):
        read_list(tmp_path, annotated=False)


def nnunet(folder, labels, channels=1, cases=("x",)):
    about = {"channel_names": {str(n): "CT" for n in range(channels)}, "labels": labels, "file_ending": ".nrrd", "numTraining": len(cases)}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    for case in cases:
        touch(folder, *(f"imagesTr/{case}_{n:04d}.nrrd" for n in range(channels)), f"labelsTr/{case}.nrrd")
    return folder


def test_a_dataset_of_nnunet(tmp_path):
    (patient,) = read_list(nnunet(tmp_path, {"background": 0, "liver": 1, "ignore": 2}, 2), annotated=True)
    assert patient.images == tuple(str(tmp_path / f"imagesTr/x_000{n}.nrrd") for n in (0, 1))
    assert (patient.name, patient.annotation) == ("x", tmp_path / "labelsTr/x.nrrd")
    assert (patient.meaning.background, patient.meaning.unlabelled, patient.meaning.names) == ("0", 2, {1: "liver"})
    touch(tmp_path, "imagesTs/y_0000.nrrd", "imagesTs/y_0001.nrrd")
    assert [p.name for p in read_list(tmp_path, annotated=False)] == ["y"]


def test_a_dataset_of_nnunet_that_is_dense_has_nothing_unlabelled(tmp_path):
    (patient,) = read_list(nnunet(tmp_path, {"background": 0, "liver": 1}), annotated=True)
    assert patient.meaning.unlabelled == -1


def test_a_dataset_of_nnunet_that_is_not_understood(tmp_path):
    with pytest.raises(InputError, match="not understood"):
        read_list(nnunet(tmp_path, {"background": 0, "whole": [1, 2]}), annotated=True)
    nnunet(tmp_path, {"background": 0, "liver": 1}, 2)
    (tmp_path / "imagesTr/x_0001.nrrd").unlink()
    with pytest.raises(InputError, match=r"case x has channels \[0\]"):
        read_list(tmp_path, annotated=True)
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        read_list(tmp_path, annotated=True)
