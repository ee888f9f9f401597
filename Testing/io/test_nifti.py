"""NIfTI: both transforms and their codes, versions, byte orders and types, against nibabel and ITK as judges."""

import gzip
import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicoms import rotation
from grids import image_array
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import read_annotation, read_volume, write_annotation, write_segmentation, write_volume

nibabel = pytest.importorskip("nibabel")

SHAPE = (4, 5, 6)
SCANNER = np.array([[-0.8, 0, 0, 20], [0, -0.9, 0, 30], [0, 0, 2, 40], [0, 0, 0, 1]])
PHANTOM = (image_array() % 3).astype(np.uint8)


def moved(kind):
    matrix = SCANNER.copy()
    if kind == "shifted":
        matrix[:3, 3] += (5, -7, 11)
    elif kind == "mirrored":
        matrix[0] = (0.8, 0, 0, -7)
    elif kind == "turned":
        matrix[:3, :3] = rotation(10, -20, 5) @ matrix[:3, :3]
    elif kind == "scaled":
        matrix[2, 2] = 2.67
    elif kind == "sheared":
        matrix[1, 2] = 0.8
    return matrix


def save(path, array=None, qform=SCANNER, sform=SCANNER, codes=(1, 1), make=nibabel.Nifti1Image):
    """array (K, J, I)."""
    array = image_array() if array is None else array
    image = make(array.T, None, dtype=array.dtype)
    image.set_sform(sform, codes[1])
    image.set_qform(qform, codes[0])
    with path.open("wb") as file:
        file.write(image.to_bytes())
    return path


def itk_geometry(path):
    image = sitk.ReadImage(str(path))
    return Geometry.from_axes(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())


CODES = [codes for codes in itertools.product((0, 1, 2, 4), repeat=2) if codes != (0, 0)]


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("kind", ["same", "shifted", "mirrored", "turned", "scaled"])
def test_the_transform_that_slicer_follows_rules_and_both_are_kept(tmp_path, kind, codes):
    path = save(tmp_path / "a.nii", sform=moved(kind), codes=codes)
    image = read_volume(path)
    follows_sform = codes[0] == 0 or codes[1] == 1
    if kind == "scaled" and follows_sform:  # where ITK takes the size of the voxels from elsewhere
        assert np.allclose(image.geometry.ijk_to_ras(), moved(kind), atol=1e-5)
    else:
        assert image.geometry.difference_from(itk_geometry(path)) == ""
    differ = kind != "same" and min(codes) > 0
    assert len(image.remarks) == (differ or (kind == "scaled" and codes[0] == 0))
    assert all(word in image.remarks[0] for word in ("qform", "sform", "mm apart", "--nifti-transform")) if differ else True
    write_segmentation(tmp_path / "out.nii.gz", PHANTOM, image.geometry, ClassTable.numbered(2), like=image)
    before, after = nibabel.load(path), nibabel.load(tmp_path / "out.nii.gz")
    for field in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_y", "srow_z"):
        assert np.array_equal(before.header[field], after.header[field]), field
    assert np.array_equal(before.affine, after.affine)
    assert np.array_equal(np.asarray(after.dataobj).T, PHANTOM)


@pytest.mark.parametrize("transform", ["qform", "sform"])
def test_the_user_may_choose(tmp_path, transform):
    path = save(tmp_path / "a.nii", sform=moved("shifted"), codes=(1, 2))
    image = read_volume(path, transform=transform)
    expected = SCANNER if transform == "qform" else moved("shifted")
    assert np.allclose(image.geometry.ijk_to_ras(), expected, atol=1e-5)
    assert "as chosen" in image.remarks[0]
    with pytest.raises(InputError, match="has no sform"):
        read_volume(save(tmp_path / "b.nii", codes=(1, 0)), transform="sform")


def test_a_sheared_sform_is_refused_unless_the_other_is_chosen(tmp_path):
    path = save(tmp_path / "a.nii", sform=moved("sheared"), codes=(1, 2))
    with pytest.raises(InputError, match=r"not at right angles: its sform \(code 2\) is sheared.*--nifti-transform qform"):
        read_volume(path)
    assert np.allclose(read_volume(path, transform="qform").geometry.ijk_to_ras(), SCANNER, atol=1e-5)
    with pytest.raises(InputError, match="sheared"):
        read_volume(path, transform="sform")


def test_a_file_without_codes_does_not_move(tmp_path):
    path = save(tmp_path / "a.nii", codes=(0, 0))
    image = read_volume(path)
    assert image.geometry.difference_from(itk_geometry(path)) == ""
    assert "codes are 0" in image.remarks[0]
    write_segmentation(tmp_path / "out.nii", PHANTOM, image.geometry, ClassTable.numbered(2), like=image)
    assert np.array_equal(nibabel.load(path).affine, nibabel.load(tmp_path / "out.nii").affine)


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000), ("micron", 1e-3), ("mm", 1), ("unknown", 1)])
def test_units_become_millimetres(tmp_path, unit, mm):
    image = nibabel.Nifti1Image(image_array().T, SCANNER)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    read = read_volume(tmp_path / "a.nii")
    assert read.geometry.difference_from(itk_geometry(tmp_path / "a.nii")) == ""
    assert np.allclose(read.geometry.spacing_kji_mm, np.array([2, 0.9, 0.8]) * mm)
    assert len(read.remarks) == (mm != 1)


TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


@pytest.mark.parametrize("make", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_versions_types_and_byte_orders(tmp_path, make, kind, order):
    array = image_array().astype(kind)
    header = make.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    image = make(array.T, SCANNER, header)
    (tmp_path / "a b.nii").write_bytes(image.to_bytes())
    (tmp_path / "no suffix").write_bytes(gzip.compress(image.to_bytes()))
    for name in ("a b.nii", "no suffix"):
        read = read_volume(tmp_path / name)
        assert np.array_equal(read.array, array)
        assert read.array.dtype.isnative
        assert read.array.dtype.itemsize <= 4
    write_segmentation(tmp_path / "out.nii", PHANTOM, read.geometry, ClassTable.numbered(2), like=read)
    written = nibabel.load(tmp_path / "out.nii")
    assert type(written) is make
    assert np.array_equal(np.asarray(written.dataobj).T, PHANTOM)


@pytest.mark.parametrize(("slope", "inter", "kind"), [(1, -1024, "i"), (2, 0, "i"), (0.5, 3, "f"), (0, 7, "i"), (np.nan, 0, "i"), (-1, 0.25, "f")])
def test_scaling(tmp_path, slope, inter, kind):
    path = save(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    path.write_bytes(raw)
    read = read_volume(path).array
    assert read.dtype.kind == kind
    assert np.allclose(read, np.asarray(nibabel.load(path).dataobj).T)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_refused_and_not_made_zero(tmp_path, value):
    array = image_array(np.float32)
    array[2, 3, 4] = value
    with pytest.raises(InputError, match="not a number or infinite"):
        read_volume(save(tmp_path / "a.nii", array))


def test_headers_of_other_images_are_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(image_array().T, SCANNER), tmp_path / "a.img")
    with pytest.raises(InputError, match="header without voxels"):
        read_volume(tmp_path / "a.hdr")
    colour = np.zeros(SHAPE[::-1], [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, SCANNER), tmp_path / "c.nii")
    with pytest.raises(InputError, match="3 values in each voxel"):
        read_volume(tmp_path / "c.nii")


def test_nothing_of_the_makers_free_text_is_passed_on(tmp_path):
    image = nibabel.Nifti1Image(image_array().T, SCANNER)
    image.header["descrip"], image.header["db_name"], image.header["aux_file"] = b"Somebody^Known", b"4711", b"x"
    nibabel.save(image, tmp_path / "a.nii")
    read = read_volume(tmp_path / "a.nii")
    write_segmentation(tmp_path / "out.nii", PHANTOM, read.geometry, ClassTable.numbered(2), like=read)
    assert b"Somebody" not in (tmp_path / "out.nii").read_bytes()
    assert b"4711" not in (tmp_path / "out.nii").read_bytes()


@pytest.mark.parametrize("degrees", [0, 0.003, 0.01, 0.02, 0.05, 0.1, 1])
def test_what_we_write_never_contradicts_itself(tmp_path, degrees):
    """Towards RAS a grid turned a little is turned almost half round, which a quaternion of float32 numbers holds badly."""
    geometry = Geometry.from_axes((2, 512, 512), (0.7, 0.7, 3), (-180, -180, 50), rotation(degrees, degrees / 2, degrees * 0.7).ravel())
    array = np.arange(2 * 512 * 512, dtype=np.uint16).reshape(2, 512, 512)
    write_volume(tmp_path / "a.nii", array, geometry)
    image, judge = read_volume(tmp_path / "a.nii"), nibabel.load(tmp_path / "a.nii")
    assert image.remarks == ()
    ends = np.array([(i, j, k, 1) for i, j, k in itertools.product((0, 511), (0, 511), (0, 1))])
    placed = [matrix for matrix in (judge.get_qform(coded=True)[0], judge.get_sform(coded=True)[0]) if matrix is not None]
    for matrix in (*placed, judge.affine, np.diag([-1, -1, 1, 1]) @ itk_geometry(tmp_path / "a.nii").matrix):
        assert np.linalg.norm(ends @ (matrix - geometry.ijk_to_ras()).T, axis=1).max() < 0.01 * 0.7
    assert len(placed) == 2 or 0 < degrees < 1


ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
SPACINGS = st.tuples(*[st.floats(0.05, 20)] * 3)
ORIGINS = st.tuples(*[st.floats(-500, 500)] * 3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(angles=ANGLES, spacing=SPACINGS, origin=ORIGINS, left=st.booleans(), suffix=st.sampled_from([".nii", ".nrrd", ".mha", ".seg.nrrd"]))
@example(angles=(0.0, 141.0, 1.375), spacing=(1.0, 1.0, 12.0), origin=(0.0, 0.0, 0.0), left=False, suffix=".nii")  # almost half a turn
def test_any_right_angled_grid_comes_back_and_others_agree(tmp_path_factory, angles, spacing, origin, left, suffix):
    folder = tmp_path_factory.mktemp("dossier é à")
    direction = rotation(*angles) * (1, 1, -1 if left else 1)
    geometry = Geometry.from_axes(SHAPE, spacing, origin, direction.ravel())
    path = folder / f"a ü{suffix}"
    table = ClassTable.numbered(2)
    (write_annotation if suffix == ".seg.nrrd" else write_volume)(path, PHANTOM, geometry, *([table] if suffix == ".seg.nrrd" else []))
    image = read_annotation(path, geometry)
    assert np.array_equal(image.annotation, PHANTOM)
    float32 = 500 * 2.0**-23 * 2 + 1e-6  # what NIfTI's numbers allow
    assert np.abs(itk_geometry(path).matrix - geometry.matrix).max() < (float32 + 1e-4 if suffix == ".nii" else 1e-6)
    if suffix == ".nii":
        for name in ("get_sform", "get_qform"):
            assert np.abs(getattr(nibabel.load(path), name)() - geometry.ijk_to_ras()).max() < float32 + 2e-5
        read = read_volume(path)
        assert np.abs(read.geometry.ijk_to_ras() - nibabel.load(path).affine).max() < 1e-6
