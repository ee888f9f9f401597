"""DICOM files for tests, made with pydicom from an array and a grid, and the validator that judges DICOM files.

`make_slices` gives one dataset a slice, in the order of the array's k axis; a test removes, doubles or spoils some and calls `save_slices`.
`write_series` does both at once. `make_enhanced` and `save` do the same for one multi-frame object. Arrays hold stored values, (K, J, I):
what a reader shows is stored * slope + intercept, with k along the normal (`along_normal`). Everything is the same in every run: UIDs are
made from names, times are fixed.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (pip install -e '.[dicom,test]')")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import UID, generate_uid  # noqa: E402
from pydicom.valuerep import DS  # noqa: E402

from sparseseg.contract.geometry import Geometry  # noqa: E402

NAME, ID = "Müller^Jürgen", "ID-4711-ß"  # not ASCII, and in Latin-1 and UTF-8 different bytes
SOP_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}
ENHANCED_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
TRANSFER = {
    "implicit": "1.2.840.10008.1.2",
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "big endian": "1.2.840.10008.1.2.2",
    "jpeg lossless": "1.2.840.10008.1.2.4.70",
    "jpeg-ls": "1.2.840.10008.1.2.4.80",
    "jpeg 2000": "1.2.840.10008.1.2.4.90",
    "rle": "1.2.840.10008.1.2.5",
}
_ENHANCED_TYPE = ("DERIVED", "PRIMARY", "VOLUME", "NONE")  # original ones must tell every setting of the scanner
PLAIN = ("implicit", "explicit", "deflated", "big endian")


def uid(name: str) -> UID:
    """The same UID for the same name, in every run."""
    return generate_uid(prefix="1.2.826.0.1.3680043.8.498.", entropy_srcs=[name])


def along_normal(array: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """The same voxels with k growing along row x column, as readers order slices: a left-handed (K, J, I) array comes back turned over."""
    matrix = geometry.matrix
    if np.linalg.det(matrix[:3, :3]) > 0:
        return array, geometry
    matrix[:3, 3] += matrix[:3, 2] * (geometry.shape_kji[0] - 1)
    matrix[:3, 2] *= -1
    return array[::-1], Geometry(geometry.shape_kji, tuple(map(tuple, matrix)))


def rotation(about_i: float, about_j: float, about_k: float) -> np.ndarray:
    """3 x 3 direction matrix, turned about the LPS axes by these degrees."""
    turns = []
    for axis, degrees in enumerate((about_i, about_j, about_k)):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[np.ix_((a, b), (a, b))] = (c, -s), (s, c)
        turns.append(turn)
    return turns[2] @ turns[1] @ turns[0]


# ---------------------------------------------------------------- one file a slice


def make_slices(
    stored: np.ndarray,
    geometry: Geometry,
    *,
    modality: str = "CT",
    slope: float | Sequence[float] = 1,
    intercept: float | Sequence[float] = 0,
    padding: int | None = None,
    padding_limit: int | None = None,
    bits_stored: int = 16,
    series: str = "series",
    description: str = "thin",
    number: int = 1,
    charset: str = "ISO_IR 100",
    name: str = NAME,
) -> list[Dataset]:
    """One dataset for each slice of `stored` (K, J, I), an integer array whose sign decides PixelRepresentation; rescale may differ by slice."""
    slopes, intercepts = (np.broadcast_to(values, len(stored)) for values in (slope, intercept))
    slices = []
    for k, plane in enumerate(stored):
        dataset = _image_head(modality, SOP_CLASSES[modality], series, k + 1, charset, name)
        dataset.SeriesDescription, dataset.SeriesNumber = description, number
        dataset.InstanceNumber, dataset.AcquisitionNumber = k + 1, 1
        dataset.SliceThickness = _ds(geometry.spacing_ijk_mm[2])
        dataset.ImagePositionPatient = [_ds(v) for v in (geometry.matrix @ (0, 0, k, 1))[:3]]
        dataset.ImageOrientationPatient = _orientation(geometry)
        dataset.PixelSpacing = [_ds(v) for v in geometry.spacing_ijk_mm[1::-1]]  # rows' distance (j) first
        if modality != "MR":
            dataset.RescaleSlope, dataset.RescaleIntercept = _ds(slopes[k]), _ds(intercepts[k])
        _set_pixels(dataset, plane, bits_stored)
        if padding is not None:
            dataset.add_new("PixelPaddingValue", _sign_vr(plane), padding)
        if padding_limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", _sign_vr(plane), padding_limit)
        slices.append(dataset)
    return slices


def save_slices(slices: Sequence[Dataset], folder: Path, *, transfer: str = "explicit", shuffle: bool = False, preamble: bool = True) -> list[Path]:
    """Writes each dataset to a file of its own in `folder`; shuffled ones have names that tell nothing. Returns the files in the given order."""
    names = [f"{n + 1:04}.dcm" for n in range(len(slices))]
    if shuffle:
        random.Random(4).shuffle(names)
        names = [f"IM{_telling_nothing(name)}" for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    first = len(list(folder.iterdir()))  # a second series in the same folder must not overwrite the first
    paths = [folder / (name if not first else f"{first}_{name}") for name in names]
    for dataset, path in zip(slices, paths, strict=True):
        save(dataset, path, transfer=transfer, preamble=preamble)
    return paths


def write_series(
    folder: Path, stored: np.ndarray, geometry: Geometry, *, transfer: str = "explicit", shuffle: bool = False, preamble: bool = True, **options
) -> list[Path]:
    """The files of a sound series, in the order of k; `options` as in `make_slices`."""
    return save_slices(make_slices(stored, geometry, **options), folder, transfer=transfer, shuffle=shuffle, preamble=preamble)


def with_uids(source: Path, folder: Path) -> list[Path]:
    """Copies of a series whose UIDs were emptied to remove identity, with UIDs made from its name: an archive takes nothing without them."""
    paths = []
    for n, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(f"study of {source}"), uid(f"series of {source}")
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(f"{source} {n}")
        dataset.FrameOfReferenceUID = uid(f"frame of {source}")
        paths.append(folder / f"{n:04}.dcm")
        dataset.save_as(paths[-1])
    return paths


def _telling_nothing(text: str) -> str:
    return f"{sum(ord(c) * 31**n for n, c in enumerate(text)) % 99991:05}"


def save(dataset: Dataset, path: Path, *, transfer: str = "explicit", preamble: bool = True) -> Path:
    """One Part 10 file, or the bare dataset (implicit, without preamble and meta header) as old software left it."""
    dataset = pydicom.Dataset(dataset)  # a copy: the encoding is the file's matter
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = TRANSFER[transfer if transfer in PLAIN else "explicit"]
    if transfer == "big endian" and "PixelData" in dataset and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    if not preamble:
        del dataset.file_meta
        dataset.save_as(path, implicit_vr=True, little_endian=True)
        return path
    dataset.save_as(path, enforce_file_format=True)
    if transfer not in PLAIN:
        _compress(path, TRANSFER[transfer])
    return path


def _compress(path: Path, syntax: str) -> None:
    """pydicom encodes what it can; the others, frame by frame, SimpleITK's GDCM."""
    dataset = pydicom.dcmread(path)
    if syntax in (TRANSFER["rle"], TRANSFER["jpeg-ls"]):
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        dataset.PixelData = pydicom.encaps.encapsulate([_encoded(frame, syntax, path) for frame in frames])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.save_as(path, enforce_file_format=True)


def _encoded(frame: np.ndarray, syntax: str, path: Path) -> bytes:
    """One frame, (rows, columns), as SimpleITK encodes it."""
    scratch = path.with_name("encoded.dcm")
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(scratch))
    writer.UseCompressionOn()
    writer.SetCompressor({TRANSFER["jpeg 2000"]: "JPEG2000", TRANSFER["jpeg lossless"]: "JPEG"}[syntax])
    writer.Execute(sitk.GetImageFromArray(frame))
    written = pydicom.dcmread(scratch)
    scratch.unlink()
    if written.file_meta.TransferSyntaxUID != syntax:
        raise RuntimeError(f"SimpleITK wrote {written.file_meta.TransferSyntaxUID.name} instead")
    return next(pydicom.encaps.generate_frames(written.PixelData, number_of_frames=1))


# ---------------------------------------------------------------- faults: each changes the list of datasets, or gives a new one


def tilt(slices: Sequence[Dataset], degrees: float) -> None:
    """Shears the positions along the columns, as a tilted gantry does: planes stay parallel, their stack leans."""
    first = np.array(slices[0].ImagePositionPatient, dtype=float)
    for dataset in slices:
        row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        position = np.array(dataset.ImagePositionPatient, dtype=float)
        height = np.cross(row, column) @ (position - first)
        dataset.ImagePositionPatient = [_ds(v) for v in position + column * height * np.tan(np.deg2rad(degrees))]
        if dataset.Modality == "CT":
            dataset.GantryDetectorTilt = _ds(degrees)


def shift(dataset: Dataset, along_normal_mm: float) -> None:
    """Moves one slice along its normal."""
    row, column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    position = np.array(dataset.ImagePositionPatient, dtype=float) + np.cross(row, column) * along_normal_mm
    dataset.ImagePositionPatient = [_ds(v) for v in position]


def copy_of(dataset: Dataset, name: str) -> Dataset:
    """The same slice as another object, with a SOP Instance UID of its own."""
    other = copy.deepcopy(dataset)
    other.SOPInstanceUID = uid(f"{dataset.SOPInstanceUID} {name}")
    return other


def make_localizer(dataset: Dataset) -> Dataset:
    """A sagittal scout in the same series as the axial `dataset`, of the same size."""
    scout = copy_of(dataset, "localizer")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    scout.InstanceNumber = 0
    return scout


def use_modality_lut(dataset: Dataset, table: np.ndarray) -> None:
    """Real values from a table (uint16, by stored value from 0) in place of slope and intercept."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(table) % 65536, 0, 16])
    item.ModalityLUTType = "US"
    item.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    dataset.ModalityLUTSequence = [item]
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in dataset:
            del dataset[keyword]


def make_colour(dataset: Dataset) -> None:
    """Turns a grey slice into an RGB one of the same size."""
    plane = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
    dataset.PixelData = np.repeat((plane % 256).astype(np.uint8)[..., None], 3, axis=-1).tobytes()
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in dataset:
            del dataset[keyword]


def cut_short(path: Path, part: float = 0.5) -> None:
    """Leaves the first part of a file, as an interrupted copy does."""
    os.truncate(path, int(path.stat().st_size * part))


def make_companions(dataset: Dataset) -> list[Dataset]:
    """What lies beside the images of a study in an archive's export: a report, a presentation state, a segmentation, structures, a screenshot."""
    kinds = {
        "SR": "1.2.840.10008.5.1.4.1.1.88.22",
        "PR": "1.2.840.10008.5.1.4.1.1.11.1",
        "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
        "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
        "OT": "1.2.840.10008.5.1.4.1.1.7",
    }
    companions = []
    for number, (modality, sop_class) in enumerate(kinds.items(), start=100):
        other = _head(modality, sop_class, f"beside {modality}", 1, "ISO_IR 100", NAME)
        other.StudyInstanceUID, other.SeriesNumber, other.SeriesDescription = dataset.StudyInstanceUID, number, f"beside {modality}"
        if modality == "SEG":
            _set_bits(other, dataset)
        elif modality == "OT":
            _set_pixels(other, np.arange(64, dtype=np.uint16).reshape(8, 8), 16)
        companions.append(other)
    return companions


# ---------------------------------------------------------------- one file for all frames


def make_enhanced(
    stored: np.ndarray,
    geometry: Geometry,
    *,
    modality: str = "CT",
    slope: float | Sequence[float] = 1,
    intercept: float | Sequence[float] = 0,
    per_frame: Sequence[str] = ("position",),
    frame_order: Sequence[int] | None = None,
    bits_stored: int = 16,
    series: str = "enhanced",
    charset: str = "ISO_IR 100",
    name: str = NAME,
) -> Dataset:
    """An enhanced CT or MR object of `stored` (K, J, I).

    `per_frame` names what stands in each frame's own item instead of the shared one: "rescale", "orientation", "spacing" (positions always
    do). `frame_order[n]` is the slice k that is stored as frame n. Slope and intercept: one value, or one for each k (then in each frame).
    """
    order = list(range(len(stored)) if frame_order is None else frame_order)
    slopes, intercepts = (np.broadcast_to(values, len(stored)) for values in (slope, intercept))
    dataset = _image_head(modality, ENHANCED_CLASSES[modality], series, 1, charset, name)
    dataset.SeriesDescription, dataset.SeriesNumber, dataset.InstanceNumber = "enhanced", 1, 1
    _add_enhanced_modules(dataset, modality)
    _set_pixels(dataset, stored[order], bits_stored)
    dataset.NumberOfFrames = len(order)
    groups = {"orientation": _orientation_group(geometry), "spacing": _spacing_group(geometry)}
    if "rescale" not in per_frame:
        groups["rescale"] = _rescale_group(slopes[0], intercepts[0])
    shared = Dataset()
    for group in (_frame_type_group(modality), *(group for key, group in groups.items() if key not in per_frame)):
        shared.update(group)
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in order:
        frame = _frame_content_group(k)
        frame.update(_position_group(geometry, k))
        if "rescale" in per_frame:
            frame.update(_rescale_group(slopes[k], intercepts[k]))
        for key in per_frame:
            frame.update(groups.get(key, {}))
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    return dataset


def write_enhanced(path: Path, stored: np.ndarray, geometry: Geometry, *, transfer: str = "explicit", **options) -> Path:
    """A sound enhanced object in one file; `options` as in `make_enhanced`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(make_enhanced(stored, geometry, **options), path, transfer=transfer)


def _add_enhanced_modules(dataset: Dataset, modality: str) -> None:
    dataset.ContentDate, dataset.ContentTime, dataset.AcquisitionDateTime, dataset.AcquisitionDuration = "20260102", "101112", "20260102101112", 1.0
    dataset.ContentQualification, dataset.LossyImageCompression, dataset.BurnedInAnnotation = "RESEARCH", "00", "NO"
    dataset.PresentationLUTShape, dataset.PixelPresentation, dataset.VolumetricProperties = "IDENTITY", "MONOCHROME", "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.AcquisitionContextSequence, dataset.AcquisitionNumber = [], 1
    dataset.DeviceSerialNumber, dataset.ManufacturerModelName, dataset.SoftwareVersions = "1", "phantom", "1"
    dataset.ImageType = list(_ENHANCED_TYPE)
    if modality == "MR":
        dataset.ComplexImageComponent, dataset.AcquisitionContrast = "MAGNITUDE", "T1"
        dataset.MagneticFieldStrength, dataset.ResonantNucleus, dataset.KSpaceFiltering = 3.0, "1H", "NONE"
        dataset.ApplicableSafetyStandardAgency = "IEC"
        for keyword in ("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime"):
            del dataset[keyword]
    else:
        del dataset["KVP"]
    organization = Dataset()
    organization.DimensionOrganizationUID = uid("dimensions")
    dataset.DimensionOrganizationSequence = [organization]
    index = Dataset()
    index.DimensionOrganizationUID = uid("dimensions")
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x00209057, 0x00209111  # in-stack position, in the frame's content
    dataset.DimensionIndexSequence = [index]


def _frame_type_group(modality: str) -> Dataset:
    item = Dataset()
    item.FrameType, item.PixelPresentation, item.VolumetricProperties = list(_ENHANCED_TYPE), "MONOCHROME", "VOLUME"
    item.VolumeBasedCalculationTechnique = "NONE"
    if modality == "MR":
        item.ComplexImageComponent, item.AcquisitionContrast = "MAGNITUDE", "T1"
    group = _in_group("MRImageFrameTypeSequence" if modality == "MR" else "CTImageFrameTypeSequence", item)
    anatomy = Dataset()
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", [_code("818981001", "SCT", "Abdomen")]
    group.update(_in_group("FrameAnatomySequence", anatomy))
    if modality == "CT":
        event = Dataset()
        event.IrradiationEventUID = uid("irradiation")
        group.update(_in_group("IrradiationEventIdentificationSequence", event))
    return group


def _frame_content_group(k: int) -> Dataset:
    item = Dataset()
    item.StackID, item.InStackPositionNumber, item.DimensionIndexValues = "1", k + 1, [k + 1]
    item.FrameAcquisitionNumber = 1
    item.FrameReferenceDateTime = item.FrameAcquisitionDateTime = "20260102101112"
    item.FrameAcquisitionDuration = 1.0
    return _in_group("FrameContentSequence", item)


def _position_group(geometry: Geometry, k: int) -> Dataset:
    item = Dataset()
    item.ImagePositionPatient = [_ds(v) for v in (geometry.matrix @ (0, 0, k, 1))[:3]]
    return _in_group("PlanePositionSequence", item)


def _orientation_group(geometry: Geometry) -> Dataset:
    item = Dataset()
    item.ImageOrientationPatient = _orientation(geometry)
    return _in_group("PlaneOrientationSequence", item)


def _spacing_group(geometry: Geometry) -> Dataset:
    item = Dataset()
    item.PixelSpacing = [_ds(v) for v in geometry.spacing_ijk_mm[1::-1]]
    item.SliceThickness = item.SpacingBetweenSlices = _ds(geometry.spacing_ijk_mm[2])
    return _in_group("PixelMeasuresSequence", item)


def _rescale_group(slope: float, intercept: float) -> Dataset:
    item = Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = _ds(slope), _ds(intercept), "HU"
    return _in_group("PixelValueTransformationSequence", item)


def _in_group(keyword: str, item: Dataset) -> Dataset:
    group = Dataset()
    setattr(group, keyword, [item])
    return group


# ---------------------------------------------------------------- heads


def _head(modality: str, sop_class: str, series: str, instance: int, charset: str, name: str) -> Dataset:
    """Patient, study, series, equipment and SOP common: of the same patient and study for every series."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = charset
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid(f"{series} {instance}")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = uid("study"), uid(series), uid("frame of reference")
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = name, ID, "19700131", "M"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20260102", "101112", "S1", "A1"
    dataset.StudyDescription, dataset.ReferringPhysicianName, dataset.PatientAge = "Größe der Leber", "Déjà^Zoë", "055Y"
    dataset.SeriesDate, dataset.SeriesTime = "20260102", "101112"
    dataset.Modality, dataset.Manufacturer, dataset.PositionReferenceIndicator = modality, "SparseSegSlicer tests", ""
    dataset.BodyPartExamined = "ABDOMEN"  # unpaired: else laterality is asked for
    return dataset


def _image_head(modality: str, sop_class: str, series: str, instance: int, charset: str, name: str) -> Dataset:
    dataset = _head(modality, sop_class, series, instance, charset, name)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M" if modality == "MR" else "AXIAL"]
    dataset.ContentDate, dataset.ContentTime, dataset.PatientPosition = "20260102", "101112", "HFS"
    if modality == "CT":
        dataset.KVP, dataset.RescaleType = "120", "HU"
    elif modality == "MR":
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions, dataset.MRAcquisitionType = "GR", "NONE", "", "3D"
        dataset.EchoTime, dataset.EchoTrainLength, dataset.RepetitionTime = "5", "1", "10"
    else:
        _add_pet_modules(dataset, instance)
    if sop_class in ENHANCED_CLASSES.values() and modality == "CT":
        del dataset["RescaleType"]
    return dataset


def _add_pet_modules(dataset: Dataset, instance: int) -> None:
    dataset.Units, dataset.CountsSource, dataset.SeriesType, dataset.DecayCorrection = "BQML", "EMISSION", ["STATIC", "IMAGE"], "NONE"
    dataset.CorrectedImage, dataset.CollimatorType, dataset.ImageIndex, dataset.NumberOfSlices = ["ATTN"], "NONE", instance, 1
    dataset.FrameReferenceTime, dataset.ActualFrameDuration, dataset.AcquisitionDate, dataset.AcquisitionTime = "0", "1000", "20260102", "101112"
    dataset.RadiopharmaceuticalInformationSequence = []
    del dataset["PatientPosition"]  # the two sequences stand for it
    dataset.PatientOrientationCodeSequence, dataset.PatientGantryRelationshipCodeSequence = [], []


def _set_pixels(dataset: Dataset, pixels: np.ndarray, bits_stored: int) -> None:
    """Stored values (..., J, I), int16 or uint16; of 12 bits, the sign goes no higher than bit 11."""
    if pixels.dtype not in (np.int16, np.uint16):
        raise ValueError(f"stored values are int16 or uint16, not {pixels.dtype}")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(pixels.dtype == np.int16)
    dataset.add_new("PixelData", "OW", (pixels.view(np.uint16) & (2**bits_stored - 1)).astype("<u2").tobytes())


def _set_bits(dataset: Dataset, source: Dataset) -> None:
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = source.Rows, source.Columns, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    size = -(-int(source.Rows) * int(source.Columns) // 8)
    dataset.add_new("PixelData", "OB", bytes(size + size % 2))


def _orientation(geometry: Geometry) -> list[DS]:
    """Row then column direction: where i and where j grow."""
    cosines = np.array(geometry.direction).reshape(3, 3)
    return [_ds(v) for v in (*cosines[:, 0], *cosines[:, 1])]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _sign_vr(plane: np.ndarray) -> str:
    return "SS" if plane.dtype == np.int16 else "US"


def _ds(value: float) -> DS:
    """As many digits as the 16 characters of a decimal string hold."""
    return DS(float(value), auto_format=True)


# ---------------------------------------------------------------- others' tools


def tool(name: str) -> str:
    """The path of a program of Debian's packages; without it the test is skipped, but fails in CI, which installs them."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed (apt-get install dicom3tools dcmtk orthanc)")
    if not found:
        pytest.skip(f"{name} is not installed (apt-get install dicom3tools dcmtk orthanc)")
    return found


def dciodvfy(path: Path) -> list[str]:
    """The errors that dicom3tools' validator finds in a file; warnings are left out."""
    done = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, timeout=120)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    if not lines:
        raise RuntimeError(f"dciodvfy said nothing about {path} (exit status {done.returncode})")
    return [line for line in lines if line.startswith("Error")]
