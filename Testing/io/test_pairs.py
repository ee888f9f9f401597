"""From each format of voxels into each other: no voxel changes and no grid moves, by what we read and by what other programs read.

Of a grid's corners NRRD and MetaImage keep 1e-6 mm. NIfTI's header has float32 numbers: there each is rounded once, which is the bound.
"""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from dicoms import rotation
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.io import read_annotation, read_volume, write_annotation, write_volume

nibabel = pytest.importorskip("nibabel")
nrrd = pytest.importorskip("nrrd")

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha")
LABELS = (*VOLUMES, ".seg.nrrd")
SHAPE = (3, 4, 5)
TABLE = ClassTable.numbered(3)
EXACT_MM = 1e-6
ITK_ROUNDINGS = 4  # it takes a NIfTI's spacing and directions from different fields, and turns the directions to right angles
KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "f4")
LPS_RAS = np.diag([-1.0, -1, 1, 1])


@st.composite
def grids(draw):
    """Always oblique and anisotropic, right- or left-handed, any axis the longest."""
    spacing = draw(st.permutations([draw(st.floats(*ends)) for ends in ((0.05, 0.9), (1, 3), (3.5, 20))]))
    axes = rotation(*draw(st.tuples(*[st.floats(3, 177)] * 3)))[:, draw(st.permutations(range(3)))]
    signs = draw(st.tuples(*[st.sampled_from((1, -1))] * 3))
    return Geometry.from_axes(SHAPE, spacing, draw(st.tuples(*[st.floats(-500, 500)] * 3)), (axes * signs).ravel())


def corners(matrix):
    """(8, 3) mm."""
    ends = [(0, n - 1) for n in SHAPE[::-1]]
    return (np.array([(*ijk, 1) for ijk in itertools.product(*ends)]) @ matrix.T)[:, :3]


def allowed_mm(path, matrix, roundings=1):
    """How far a corner may lie from where `matrix` has it, once the file is written."""
    float32 = roundings * 2.0**-24 * corners(np.abs(matrix)).max() * 3**0.5
    return EXACT_MM + (float32 if ".nii" in path.name else 0)


def itk(path):
    image = sitk.ReadImage(str(path))
    matrix = Geometry.from_axes(SHAPE, image.GetSpacing(), image.GetOrigin(), image.GetDirection()).matrix
    return sitk.GetArrayFromImage(image), matrix, ITK_ROUNDINGS


def by_nibabel(path):
    image = nibabel.load(path)
    return np.asarray(image.dataobj).T, LPS_RAS @ image.affine, 1


def by_pynrrd(path):
    array, header = nrrd.read(str(path))
    assert header["space"] == "left-posterior-superior"
    return array.T, np.vstack([np.column_stack([header["space directions"].T, header["space origin"]]), (0, 0, 0, 1)]), 1


def by_us(path):
    image = read_volume(path)
    assert image.remarks == ()
    return image.array, image.geometry.matrix, 1


JUDGES = {".nii": [by_us, itk, by_nibabel], ".nrrd": [by_us, itk, by_pynrrd], ".mha": [by_us, itk]}


def check(path, array, matrix):
    """Each reader finds these voxels, on this grid."""
    for judge in JUDGES[path.suffix if path.suffix != ".gz" else ".nii"]:
        found, lies, roundings = judge(path)
        assert found.dtype == array.dtype
        assert np.array_equal(found, array), judge
        apart = np.linalg.norm(corners(lies) - corners(matrix), axis=1).max()
        assert apart <= allowed_mm(path, matrix, roundings), judge


@pytest.mark.parametrize(("first", "second"), list(itertools.product(VOLUMES, repeat=2)))
@settings(max_examples=8, deadline=None, derandomize=True)
@given(geometry=grids(), kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32 - 1))
def test_images(tmp_path_factory, first, second, geometry, kind, seed):
    folder = tmp_path_factory.mktemp("pair")
    array = np.frombuffer(np.random.default_rng(seed).bytes(60 * 4), "i4").reshape(SHAPE).astype(kind)
    write_volume(folder / f"a{first}", array, geometry)
    check(folder / f"a{first}", array, geometry.matrix)
    between = read_volume(folder / f"a{first}")
    write_volume(folder / f"b{second}", between.array, between.geometry)
    check(folder / f"b{second}", array, between.geometry.matrix)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(LABELS, repeat=2)))
@settings(max_examples=8, deadline=None, derandomize=True)
@given(geometry=grids(), seed=st.integers(0, 2**32 - 1))
def test_strokes(tmp_path_factory, first, second, geometry, seed):
    """Codes in a file: 0 unlabelled, 1 background, 2 and more segments; in a .seg.nrrd the segments count from 1 and the background is the last."""
    folder = tmp_path_factory.mktemp("pair")
    codes = np.random.default_rng(seed).permutation(np.arange(60, dtype=np.uint8) % 5).reshape(SHAPE)
    in_file = {".seg.nrrd": np.array([0, 4, 1, 2, 3], np.uint8)[codes]}
    write_annotation(folder / f"a{first}", codes, geometry, TABLE)
    check(folder / f"a{first}", in_file.get(first, codes), geometry.matrix)
    grid = read_volume(folder / f"a{first}").geometry
    labels = read_annotation(folder / f"a{first}", geometry)  # lies on the image's own grid as well
    assert np.array_equal(labels.annotation, codes)
    write_annotation(folder / f"b{second}", labels.annotation, grid, labels.classes)
    check(folder / f"b{second}", in_file.get(second, codes), grid.matrix)
    assert np.array_equal(read_annotation(folder / f"b{second}", geometry).annotation, codes)
