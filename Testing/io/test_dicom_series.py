"""DICOM series in: read right, voxel for voxel and where they lie, or refused by a sentence that names the cause."""

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

import dicoms
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io.files import read_volume, write_segmentation

SHAPE = (5, 12, 16)  # (K, J, I), all different
SPACING, ORIGIN = (0.75, 0.5, 2.5), (-7.25, 3.5, 100.125)  # I, J, K; LPS


def grid(direction, spacing=SPACING):
    return Geometry.from_axes(SHAPE, spacing, ORIGIN, np.asarray(direction, float).ravel())


OBLIQUE = dicoms.rotation(10, 20, 30)
GRIDS = {
    "axial": grid(np.eye(3)),
    "axial, head first": grid(np.diag([1, 1, -1])),  # left-handed: the array's k runs against the normal
    "sagittal": grid([[0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "coronal": grid([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": grid(OBLIQUE),
    "oblique, left-handed": grid(OBLIQUE @ np.diag([1, 1, -1])),
    "prone": grid(np.diag([-1, -1, 1])),
    "thin": grid(OBLIQUE, (0.05, 0.04, 0.1)),
}
GEOMETRY = GRIDS["oblique"]


def stored_array(dtype=np.int16, low=-1000, high=1000, shape=SHAPE):
    """(K, J, I): a stored value is nearly never repeated, so no voxel can be taken for another."""
    return np.random.default_rng(7).integers(low, high, shape).astype(dtype)


STORED = stored_array()


def assert_reads(place, expected, geometry, series=None):
    """The volume, after its voxels and its grid were compared with `expected` (K, J, I) on `geometry`, in any order along k."""
    expected, geometry = dicoms.along_normal(expected, geometry)
    volume = read_volume(place, series)
    assert volume.geometry.shape_kji == geometry.shape_kji
    np.testing.assert_allclose(volume.geometry.matrix, geometry.matrix, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(volume.array, expected)
    return volume


def assert_refused(place, match, series=None):
    """One clear sentence with the cause, and nothing of the patient in it."""
    with pytest.raises(InputError, match=match) as caught:
        read_volume(place, series)
    assert caught.value.sentence.count(". ") == 0
    for secret in (dicoms.NAME, "Müller", dicoms.ID):
        assert secret not in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "série 1"


# ---------------------------------------------------------------- where the slices lie


@pytest.mark.parametrize("name", GRIDS)
def test_grids(folder, name):
    files = dicoms.write_series(folder, STORED, GRIDS[name], shuffle=True)
    volume = assert_reads(folder, STORED, GRIDS[name])
    in_order = files if name not in ("axial, head first", "oblique, left-handed") else files[::-1]
    assert [frame.file for frame in volume.series.frames] == in_order
    assert [frame.uid for frame in volume.series.frames] == [pydicom.dcmread(file).SOPInstanceUID for file in in_order]
    assert {frame.number for frame in volume.series.frames} == {0}
    assert volume.series.geometry == volume.geometry
    assert np.linalg.det(volume.geometry.matrix[:3, :3]) > 0


@pytest.mark.parametrize("name", GRIDS)
def test_itk_reads_the_same(folder, name):
    dicoms.write_series(folder, STORED, GRIDS[name], slope=2, intercept=-50)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    its_geometry = Geometry.from_axes(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayViewFromImage(image))
    np.testing.assert_allclose(volume.geometry.matrix, its_geometry.matrix, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["axial, head first", "sagittal", "oblique"])
def test_slicer_reads_the_same(folder, name, scene_host):
    """Slicer's own reader of volumes, as its DICOM module calls it: files in order of position."""
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    files = dicoms.write_series(folder, STORED, GRIDS[name])
    if name == "axial, head first":
        files = files[::-1]
    node = scene_host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    storage = scene_host.scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetSingleFile(False)
    storage.ResetFileNameList()
    for file in files:
        storage.AddFileName(str(file))
    storage.SetFileName(str(files[0]))
    assert storage.ReadData(node)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ijk_to_ras = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    array = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).reshape(SHAPE)
    volume = read_volume(folder)
    if np.linalg.det(ijk_to_ras[:3, :3]) < 0:  # Slicer may store k the other way round; the voxels lie where ours do
        ijk_to_ras[:3, 3] += ijk_to_ras[:3, 2] * (SHAPE[0] - 1)
        ijk_to_ras[:3, 2] *= -1
        array = array[::-1]
    np.testing.assert_allclose(volume.geometry.ijk_to_ras(), ijk_to_ras, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(volume.array, array)


def test_rounded_headers(folder, tmp_path):
    """Many scanners write positions with two digits and cosines with four: no reason to refuse, and the result can be written."""
    slices = dicoms.make_slices(STORED, GEOMETRY)
    for dataset in slices:
        dataset.ImagePositionPatient = [f"{v:.2f}" for v in dataset.ImagePositionPatient]
        dataset.ImageOrientationPatient = [f"{v:.4f}" for v in dataset.ImageOrientationPatient]
    dicoms.save_slices(slices, folder)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, STORED)
    np.testing.assert_allclose(volume.geometry.matrix, GEOMETRY.matrix, rtol=0, atol=0.02)
    from sparseseg.contract.classes import ClassTable

    for suffix in (".seg.nrrd", ".nii.gz"):
        write_segmentation(tmp_path / f"out{suffix}", (STORED > 0).astype(np.uint8), volume.geometry, ClassTable.numbered(1))


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_what_the_series_says(folder, modality):
    dicoms.write_series(folder, STORED, GEOMETRY, modality=modality, description="Leber spät", series="one")
    series = read_volume(folder).series
    assert (series.uid, series.modality, series.description) == (dicoms.uid("one"), modality, "Leber spät")


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_character_sets(folder, charset):
    dicoms.write_series(folder, STORED, GEOMETRY, charset=charset, description="Ärztin Łódź"[:6] if charset == "ISO_IR 100" else "Ärztin Łódź")
    assert read_volume(folder).series.description.startswith("Ärztin")


def test_two_slices(folder):
    dicoms.write_series(folder, STORED[:2], Geometry((2, *SHAPE[1:]), GEOMETRY.ijk_to_lps))
    assert_reads(folder, STORED[:2], Geometry((2, *SHAPE[1:]), GEOMETRY.ijk_to_lps))


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("transfer", dicoms.TRANSFER)
@pytest.mark.parametrize(("dtype", "bits", "low", "high"), [("int16", 16, -3000, 3000), ("uint16", 12, 0, 4096), ("int16", 12, -2048, 2048)])
def test_transfer_syntaxes(folder, transfer, dtype, bits, low, high):
    stored = stored_array(dtype, low, high)
    dicoms.write_series(folder, stored, GEOMETRY, transfer=transfer, bits_stored=bits, intercept=-1024)
    volume = assert_reads(folder, stored.astype(int) - 1024, GEOMETRY)
    assert volume.array.dtype == np.int16


@pytest.mark.parametrize("transfer", ["explicit", "jpeg lossless", "jpeg-ls", "jpeg 2000", "rle"])
@pytest.mark.parametrize("intercept", [0, -1024, 5])
def test_all_16_bits(folder, transfer, intercept):
    stored = stored_array(np.uint16, 0, 65536)
    stored[0, 0, :2] = 0, 65535
    dicoms.write_series(folder, stored, GEOMETRY, transfer=transfer, intercept=intercept)
    assert assert_reads(folder, stored.astype(int) + intercept, GEOMETRY).array.dtype.kind in "iu"


@pytest.mark.parametrize("transfer", ["explicit", "jpeg 2000", "rle"])
def test_8_bits(folder, transfer):
    stored = stored_array(np.uint16, 0, 256)
    slices = dicoms.make_slices(stored, GEOMETRY)
    for dataset, plane in zip(slices, stored, strict=True):
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.add_new("PixelData", "OB", plane.astype(np.uint8).tobytes())
    dicoms.save_slices(slices, folder, transfer=transfer)
    assert_reads(folder, stored, GEOMETRY)


def test_each_file_in_another_transfer_syntax(folder):
    """An archive keeps what each scanner and workstation sent."""
    for transfer, dataset in zip(("explicit", "jpeg 2000", "rle", "implicit", "jpeg-ls"), dicoms.make_slices(STORED, GEOMETRY), strict=True):
        dicoms.save_slices([dataset], folder, transfer=transfer)
    assert_reads(folder, STORED, GEOMETRY)


@pytest.mark.parametrize(("dtype", "bits"), [("uint16", 12), ("int16", 12), ("uint16", 15)])
def test_unused_bits_may_hold_anything(folder, dtype, bits):
    """Old scanners put overlays there."""
    stored = stored_array(dtype, 0 if dtype == "uint16" else -2000, 2000)
    slices = dicoms.make_slices(stored, GEOMETRY, bits_stored=bits)
    for dataset in slices:
        raw = np.frombuffer(dataset.PixelData, "<u2").copy()
        raw[::3] ^= 0x8000
        dataset.PixelData = raw.tobytes()
    dicoms.save_slices(slices, folder)
    assert_reads(folder, stored, GEOMETRY)


def test_without_preamble(folder):
    dicoms.write_series(folder, STORED, GEOMETRY, preamble=False)
    assert_reads(folder, STORED, GEOMETRY)


def test_subfolders_and_other_files(folder):
    files = dicoms.write_series(folder, STORED, GEOMETRY, shuffle=True)
    for n, file in enumerate(files):
        (folder / f"{n % 2}").mkdir(exist_ok=True)
        shutil.move(file, folder / f"{n % 2}" / file.name)
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "picture.png").write_bytes(b"\x89PNG" + bytes(500))
    assert_reads(folder, STORED, GEOMETRY)


def test_list_of_files(folder, tmp_path):
    files = dicoms.write_series(folder, STORED, GEOMETRY)
    dicoms.write_series(folder, STORED, GRIDS["axial"], series="another")
    listing = tmp_path / "files.txt"
    listing.write_text("\n".join(map(str, files[::-1])) + "\n\n", encoding="utf-8")
    assert_reads(listing, STORED, GEOMETRY)
    listing.write_text("\n".join(map(str, [*files, folder / "gone.dcm"])), encoding="utf-8")
    assert_refused(listing, "gone.dcm")
    listing.write_text("", encoding="utf-8")
    assert_refused(listing, "no DICOM image")


def test_uids_only_in_the_meta_information(folder):
    """Some programs empty the UIDs in the dataset to remove identity."""
    files = dicoms.write_series(folder, STORED, GEOMETRY)
    uids = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    for file in files:
        dataset = pydicom.dcmread(file)
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, "")
        dataset.save_as(file)
    assert [frame.uid for frame in assert_reads(folder, STORED, GEOMETRY).series.frames] == uids


def test_choosing_a_series(folder):
    other = stored_array(low=-10, high=10)
    dicoms.write_series(folder, STORED, GEOMETRY, series="one", description="thin")
    dicoms.write_series(folder, other, GRIDS["axial"], series="two", description="thick")
    one, two = dicoms.uid("one"), dicoms.uid("two")
    assert_refused(folder, rf"2 DICOM series(?s:.*){one.replace('.', '[.]')} \(thin, 5 files\)")
    assert_reads(folder, STORED, GEOMETRY, series=one)
    assert_reads(folder, other, GRIDS["axial"], series=two)
    assert_refused(folder, r"no series 1\.2\.3", series="1.2.3")


def test_companions_are_left_alone(folder):
    """Of the files of a study only one series has places, and pixels: the others need no choice."""
    slices = dicoms.make_slices(STORED, GEOMETRY)
    dicoms.save_slices(slices, folder)
    companions = dicoms.make_companions(slices[0])
    dicoms.save_slices(companions, folder)
    assert_reads(folder, STORED, GEOMETRY)
    assert_refused(folder, "no series", series=companions[0].SeriesInstanceUID)  # the report
    assert_refused(folder, "no usable position|one slice", series=companions[-1].SeriesInstanceUID)  # the screenshot


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("transfer", ["explicit", "jpeg lossless", "jpeg 2000", "rle"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2, -100), (1, -1024), (-1, 5), (0.5, 0.25), (0.001953125, 0), (0.1, -3.7), (1e-5, 0)])
def test_rescale(folder, transfer, slope, intercept):
    dicoms.write_series(folder, STORED, GEOMETRY, modality="PT", slope=slope, intercept=intercept, transfer=transfer)
    volume = read_volume(folder)
    expected = STORED * slope + intercept
    if float(slope).is_integer() and float(intercept).is_integer():
        assert volume.array.dtype == np.int16
        np.testing.assert_array_equal(volume.array, expected)
    else:
        assert volume.array.dtype == np.float32
        np.testing.assert_allclose(volume.array, expected, rtol=3e-7, atol=3e-7 * abs(slope))


def test_whole_numbers_beyond_16_bits_stay_exact(folder):
    stored = stored_array(np.uint16, 0, 65536)
    dicoms.write_series(folder, stored, GEOMETRY, slope=1000, intercept=3)
    volume = assert_reads(folder, stored.astype(int) * 1000 + 3, GEOMETRY)
    assert volume.array.dtype.kind in "iu"


@pytest.mark.parametrize("transfer", ["explicit", "jpeg 2000"])
@pytest.mark.parametrize("slopes", [(1, 2, 3, 4, 5), (0.25, 0.5, 1.5, 0.125, 3)])
def test_rescale_differs_by_slice(folder, transfer, slopes):
    """As in PET, where each slice uses all the bits."""
    intercepts = (0, 1, -2, 3, 4)
    dicoms.write_series(folder, STORED, GEOMETRY, modality="PT", slope=slopes, intercept=intercepts, transfer=transfer, shuffle=True)
    assert_reads(folder, STORED * np.reshape(slopes, (-1, 1, 1)) + np.reshape(intercepts, (-1, 1, 1)), GEOMETRY)


def test_mr_has_no_rescale(folder):
    dicoms.write_series(folder, STORED, GEOMETRY, modality="MR")
    assert assert_reads(folder, STORED, GEOMETRY).array.dtype == np.int16


@pytest.mark.parametrize("transfer", ["explicit", "jpeg 2000", "jpeg lossless", "rle"])
@pytest.mark.parametrize(("slope", "intercept"), [(2, -5), (0.5, 0)])
def test_mr_with_rescale(folder, transfer, slope, intercept):
    """Not of the standard's MR module, but some vendors write it, and mean it."""
    slices = dicoms.make_slices(STORED, GEOMETRY, modality="MR")
    for dataset in slices:
        dataset.RescaleSlope, dataset.RescaleIntercept = str(slope), str(intercept)
    dicoms.save_slices(slices, folder, transfer=transfer)
    assert_reads(folder, STORED * slope + intercept, GEOMETRY)


@pytest.mark.parametrize("transfer", ["explicit", "big endian", "rle", "jpeg-ls"])
@pytest.mark.parametrize(
    ("dtype", "padding", "limit"),
    [
        ("int16", -2000, None),
        ("int16", -2000, -1990),
        ("int16", -1990, -2000),
        ("uint16", 63536, None),
        ("uint16", 65535, 65530),
        ("uint16", 0, None),
    ],
)
def test_padding_takes_the_smallest_real_value(folder, transfer, dtype, padding, limit):
    stored = stored_array(dtype, 10, 1000)
    padded = np.random.default_rng(3).random(SHAPE) < 0.3
    padded[2] = True  # a slice that is nothing else
    choice = [padding] if limit is None else [padding, limit, (padding + limit) // 2]
    values = np.where(padded, np.resize(choice, SHAPE), stored).astype(dtype)
    dicoms.write_series(folder, values, GEOMETRY, padding=padding, padding_limit=limit, transfer=transfer, slope=2, intercept=-500)
    real = stored.astype(int) * 2 - 500
    assert_reads(folder, np.where(padded, real[~padded].min(), real), GEOMETRY)


def test_signed_padding_written_as_unsigned(folder):
    """A frequent fault: -2000 with VR US, 63536."""
    stored = stored_array(np.int16, -1000, 1000)
    stored[:, :3] = -2000
    slices = dicoms.make_slices(stored, GEOMETRY)
    for dataset in slices:
        dataset.add_new("PixelPaddingValue", "US", 63536)
    dicoms.save_slices(slices, folder)
    assert_reads(folder, np.where(stored == -2000, stored[:, 3:].min(), stored), GEOMETRY)


def test_padding_of_12_bits_with_sign(folder):
    stored = stored_array(np.int16, -1000, 1000)
    stored[:, :3] = -2048
    dicoms.write_series(folder, stored, GEOMETRY, bits_stored=12, padding=-2048)
    assert_reads(folder, np.where(stored == -2048, stored[:, 3:].min(), stored), GEOMETRY)


@pytest.mark.parametrize("transfer", ["explicit", "jpeg 2000"])
def test_modality_lut(folder, transfer):
    stored = stored_array(np.uint16, 0, 256)
    table = (np.arange(256) ** 2 % 4001).astype(np.uint16)
    table[0] = 65535  # the descriptor promises 16 bits
    slices = dicoms.make_slices(stored, GEOMETRY)
    for dataset in slices:
        dicoms.use_modality_lut(dataset, table)
    dicoms.save_slices(slices, folder, transfer=transfer)
    assert_reads(folder, table[stored].astype(int), GEOMETRY)


# ---------------------------------------------------------------- refused


def without(*keywords):
    def change(slices):
        for keyword in keywords:
            del slices[1][keyword]

    return change


def setting(**values):
    def change(slices):
        for keyword, value in values.items():
            setattr(slices[1], keyword, value)

    return change


def lose_a_slice(slices):
    del slices[2]


def lose_two_slices(slices):
    del slices[1:3]


def double_a_slice(slices):
    slices.append(dicoms.copy_of(slices[2], "again"))


def two_time_points(slices):
    slices.extend([dicoms.copy_of(dataset, "later") for dataset in slices])


def tilt_gantry(slices):
    dicoms.tilt(slices, 12)


def tilt_a_little(slices):
    dicoms.tilt(slices, 1)


def uneven(slices):
    dicoms.shift(slices[-1], 0.7)
    dicoms.shift(slices[-2], 0.2)


def growing_distances(slices):
    for n, dataset in enumerate(slices):
        dicoms.shift(dataset, 0.01 * n * n)


def shifted_in_plane(slices):
    row = np.array(slices[2].ImageOrientationPatient[:3], dtype=float)
    slices[2].ImagePositionPatient = [f"{v:.6f}" for v in np.array(slices[2].ImagePositionPatient, dtype=float) + 3 * row]


def with_localizer(slices):
    slices.append(dicoms.make_localizer(slices[0]))


def another_size(slices):
    smaller = dicoms.make_slices(STORED[:, :6, :8], Geometry((5, 6, 8), GEOMETRY.ijk_to_lps))
    slices[1].Rows, slices[1].Columns, slices[1].PixelData = 6, 8, smaller[1].PixelData


def colour(slices):
    for dataset in slices:
        dicoms.make_colour(dataset)


def one_in_colour(slices):
    dicoms.make_colour(slices[1])


def only_one(slices):
    del slices[1:]


def all_at_one_place(slices):
    for dataset in slices:
        dataset.ImagePositionPatient = slices[0].ImagePositionPatient


REFUSED = {
    lose_a_slice: "1 slice is missing",
    lose_two_slices: "2 slices are missing|2.5 to 7.5 mm apart",
    double_a_slice: "same position",
    two_time_points: "same position",
    all_at_one_place: "same position",
    tilt_gantry: "tilted by 12 degrees",
    tilt_a_little: "tilted by 1 degrees",
    uneven: "mm apart",
    growing_distances: "mm apart",
    shifted_in_plane: "shifted",
    with_localizer: "differ in orientation",
    another_size: "differ in size",
    colour: "3 values in each voxel|colour",
    one_in_colour: "3 values in each voxel|colour",
    only_one: "only one slice",
    without("ImageOrientationPatient"): "no usable orientation",
    without("ImagePositionPatient"): "no usable position",
    without("PixelSpacing"): "no usable pixel spacing",
    setting(ImagePositionPatient=[]): "no usable position",
    setting(ImageOrientationPatient=["1", "0", "0", "1", "0", "0"]): "not at right angles",
    setting(ImageOrientationPatient=["1", "0", "0", "0.1", "1", "0"]): "not at right angles",
    setting(ImageOrientationPatient=["0.9", "0", "0", "0", "0.9", "0"]): "orientation",
    setting(ImageOrientationPatient=["0", "0", "0", "0", "0", "0"]): "orientation",
    setting(PixelSpacing=["0", "0"]): "no usable pixel spacing",
    setting(PixelSpacing=["0.6", "0.6"]): "differ in pixel spacing",
    setting(RescaleSlope="0"): "rescale slope",
    setting(PhotometricInterpretation="PALETTE COLOR"): "colour",
}
NAMES = [f"{n}: {match}" for n, match in enumerate(REFUSED.values())]


@pytest.mark.parametrize(("change", "match"), REFUSED.items(), ids=NAMES)
def test_refused(folder, change, match, caplog, recwarn):
    slices = dicoms.make_slices(STORED, GEOMETRY)
    change(slices)
    dicoms.save_slices(slices, folder, shuffle=True)
    recwarn.clear()
    assert_refused(folder, match)
    assert not recwarn.list
    assert dicoms.NAME not in caplog.text


def test_missing_slices_are_counted_on_both_sides(folder):
    """7 of 10: two holes, of one and of two slices."""
    stored = stored_array(shape=(10, 12, 16))
    slices = dicoms.make_slices(stored, Geometry((10, 12, 16), GEOMETRY.ijk_to_lps))
    del slices[6:8], slices[3]
    dicoms.save_slices(slices, folder)
    assert_refused(folder, "3 slices are missing")


CUTS = [(transfer, part) for transfer in ("explicit", "deflated", "jpeg 2000", "jpeg lossless", "jpeg-ls") for part in (0.1, 0.5, 0.9, 0.99)]


@pytest.mark.parametrize(("transfer", "part"), [*CUTS, ("rle", 0.1), pytest.param("rle", 0.99, marks=pytest.mark.slow)])
def test_cut_files_are_refused(folder, transfer, part):
    """Wherever the copy ended, also at the end of the series, where no gap would tell. GDCM takes seconds over RLE that was cut."""
    stored = stored_array(shape=(5, 64, 64))
    files = dicoms.write_series(folder, stored, Geometry((5, 64, 64), GEOMETRY.ijk_to_lps), transfer=transfer)
    dicoms.cut_short(files[-1], part)
    assert_refused(folder, "damaged|cut short|missing")


def test_a_file_without_pixels_is_refused(folder):
    slices = dicoms.make_slices(STORED, GEOMETRY)
    del slices[4]["PixelData"]
    dicoms.save_slices(slices, folder)
    assert_refused(folder, "damaged|pixels")


def test_nothing_there(tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "no DICOM image")
    with pytest.raises(InputError, match="no f"):
        read_volume(tmp_path / "gone")


def test_a_constant_series_is_refused(folder):
    dicoms.write_series(folder, np.full(SHAPE, 5, np.int16), GEOMETRY)
    assert_refused(folder, "same value")


def test_nothing_but_padding_is_refused(folder):
    dicoms.write_series(folder, np.full(SHAPE, -2000, np.int16), GEOMETRY, padding=-2000)
    assert_refused(folder, "same value")


@pytest.mark.parametrize("missing", ["pydicom"])
def test_without_pydicom(folder, tmp_path, monkeypatch, missing):
    dicoms.write_series(folder, STORED, GEOMETRY)
    for name in [name for name in __import__("sys").modules if name == missing or name.startswith(f"{missing}.")]:
        monkeypatch.delitem(__import__("sys").modules, name)
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    assert_refused(folder, "pydicom.* not installed")
    image = sitk.GetImageFromArray(STORED)
    sitk.WriteImage(image, str(tmp_path / "image.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "image.nrrd").array, STORED)


# ---------------------------------------------------------------- enhanced multi-frame images

ORDERS = {"in order": (0, 1, 2, 3, 4), "backwards": (4, 3, 2, 1, 0), "mixed": (3, 0, 4, 1, 2)}


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("per_frame", [(), ("rescale",), ("orientation", "spacing"), ("rescale", "orientation", "spacing")], ids=str)
@pytest.mark.parametrize("order", ORDERS)
def test_enhanced(tmp_path, modality, per_frame, order):
    path = dicoms.write_enhanced(
        tmp_path / "one.dcm", STORED, GEOMETRY, modality=modality, per_frame=per_frame, frame_order=ORDERS[order], slope=2, intercept=-7
    )
    volume = assert_reads(tmp_path, STORED * 2 - 7, GEOMETRY)
    assert [frame.number for frame in volume.series.frames] == [ORDERS[order].index(k) for k in range(5)]
    assert {(frame.file, frame.uid) for frame in volume.series.frames} == {(path, pydicom.dcmread(path).SOPInstanceUID)}
    assert_reads(path, STORED * 2 - 7, GEOMETRY)


@pytest.mark.parametrize("name", GRIDS)
def test_enhanced_grids(tmp_path, name):
    dicoms.write_enhanced(tmp_path / "one.dcm", STORED, GRIDS[name])
    assert_reads(tmp_path, STORED, GRIDS[name])


@pytest.mark.parametrize("transfer", dicoms.TRANSFER)
@pytest.mark.parametrize("slopes", [(1, 1, 1, 1, 1), (1, 2, 3, 4, 5), (0.5, 2, 0.125, 1, 0.25)])
def test_enhanced_transfer_syntaxes(tmp_path, transfer, slopes):
    """Compressed, and rescaled in each frame in another way."""
    dicoms.write_enhanced(
        tmp_path / "one.dcm",
        STORED,
        GEOMETRY,
        transfer=transfer,
        slope=slopes,
        intercept=(0, 1, 2, 3, 4),
        per_frame=("rescale",),
        frame_order=(3, 0, 4, 1, 2),
    )
    assert_reads(tmp_path, STORED * np.reshape(slopes, (-1, 1, 1)) + np.arange(5)[:, None, None], GEOMETRY)


def frame_item(dataset, number, sequence):
    return dataset.PerFrameFunctionalGroupsSequence[number][sequence].value[0]


def same_place_twice(dataset):
    frame_item(dataset, 1, "PlanePositionSequence").ImagePositionPatient = frame_item(dataset, 0, "PlanePositionSequence").ImagePositionPatient


def lose_a_position(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[1]["PlanePositionSequence"]


def lose_orientation(dataset):
    del dataset.SharedFunctionalGroupsSequence[0]["PlaneOrientationSequence"]


def lose_groups(dataset):
    del dataset["PerFrameFunctionalGroupsSequence"]


def lose_a_frame_of_groups(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[-1]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (same_place_twice, "same position"),
        (lose_a_position, "frame 2 of one.dcm has no usable position"),
        (lose_orientation, "no usable orientation"),
        (lose_groups, "does not say where"),
        (lose_a_frame_of_groups, "does not say where"),
    ],
)
def test_enhanced_refused(tmp_path, change, match):
    dataset = dicoms.make_enhanced(STORED, GEOMETRY)
    change(dataset)
    dicoms.save(dataset, tmp_path / "one.dcm")
    assert_refused(tmp_path, match)


def test_one_enhanced_file_for_each_slice(tmp_path):
    """Some scanners write enhanced images of one frame each."""
    for k in range(SHAPE[0]):
        place = Geometry((1, *SHAPE[1:]), GEOMETRY.ijk_to_lps).matrix
        place[:3, 3] += place[:3, 2] * k
        dataset = dicoms.make_enhanced(STORED[k : k + 1], Geometry((1, *SHAPE[1:]), tuple(map(tuple, place))))
        dataset.SOPInstanceUID = dicoms.uid(f"slice {k}")
        dicoms.save(dataset, tmp_path / f"{9 - k}.dcm")
    volume = assert_reads(tmp_path, STORED, GEOMETRY)
    assert [frame.uid for frame in volume.series.frames] == [dicoms.uid(f"slice {k}") for k in range(SHAPE[0])]


def test_two_enhanced_images_of_one_series(tmp_path):
    """Two time points, one file each."""
    for n in range(2):
        dataset = dicoms.make_enhanced(STORED, GEOMETRY)
        dataset.SOPInstanceUID = dicoms.uid(f"time {n}")
        dicoms.save(dataset, tmp_path / f"{n}.dcm")
    assert_refused(tmp_path, "same position")


@pytest.mark.parametrize("part", [0.3, 0.95])
@pytest.mark.parametrize("transfer", ["explicit", "jpeg 2000"])
def test_enhanced_cut_short(tmp_path, transfer, part):
    stored = stored_array(shape=(5, 64, 64))
    path = dicoms.write_enhanced(tmp_path / "one.dcm", stored, Geometry((5, 64, 64), GEOMETRY.ijk_to_lps), transfer=transfer)
    dicoms.cut_short(path, part)
    assert_refused(tmp_path, "damaged|cut short|no DICOM image")


# ---------------------------------------------------------------- the files that the tests make


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_the_slices_of_these_tests_are_valid(folder, modality):
    for charset in ("ISO_IR 100", "ISO_IR 192"):
        files = dicoms.write_series(folder, STORED, GEOMETRY, modality=modality, charset=charset)
        assert dicoms.dciodvfy(files[0]) == []


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("transfer", ["explicit", "jpeg 2000"])
def test_the_enhanced_images_of_these_tests_are_valid(tmp_path, modality, transfer):
    path = dicoms.write_enhanced(tmp_path / "one.dcm", STORED, GEOMETRY, modality=modality, transfer=transfer)
    assert dicoms.dciodvfy(path) == []
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), STORED)
