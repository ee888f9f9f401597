"""The stored values of a DICOM file's pixels, through whatever decoder is there, and the same through each.

What the values mean (rescale, padding) is told by the header and applied by `dicomseries`; how they are displayed (MONOCHROME1) is nobody's
business here. pydicom decodes what its own plugins know; GDCM, in SimpleITK, knows all compressions, but inverts MONOCHROME1 and applies the
rescale of the first frame. So it is given a copy of the file that holds the pixels and what describes them, and nothing else: no name either.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..contract.errors import InputError
from ..contract.folders import PrivateFolder
from .dicomheader import Header, has_no_preamble, load_pydicom, text, whole

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # transfer syntaxes without compression
RLE = "1.2.840.10008.1.2.5"
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")
_FLOATS = {"FloatPixelData": "<f4", "DoubleFloatPixelData": "<f8"}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DESCRIPTION = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")


def read_pixels(path: Path) -> tuple[np.ndarray, Header]:
    """A file's stored values, (frames, rows, columns), and its header. Raises InputError, and anything for a damaged file."""
    data = load_pydicom().dcmread(path, force=has_no_preamble(path))
    if not text(data.file_meta, "TransferSyntaxUID"):  # old files have no meta information
        data.file_meta.TransferSyntaxUID = NATIVE[0] if data.original_encoding[0] else NATIVE[1]
    meaning = text(data, "PhotometricInterpretation") or "MONOCHROME2"
    if meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{path.name} is a colour image ({meaning}).", "Give a grey image.")
    rows, columns = whole(data, "Rows", 0, path.name), whole(data, "Columns", 0, path.name)
    for name, kind in _FLOATS.items():
        if name in data:
            return _floats(data, name, kind, (rows, columns)), data
    stored = np.asarray(_stored(path, data, decoders=("pydicom", "gdcm")))
    return stored.reshape(-1, rows, columns), data


def _floats(data: Header, name: str, kind: str, size: tuple[int, int]) -> np.ndarray:
    order = kind if str(data.file_meta.TransferSyntaxUID) != NATIVE[2] else kind.replace("<", ">")
    return np.frombuffer(data[name].value, order).reshape(-1, *size)


def _stored(path: Path, data: Header, decoders: tuple[str, ...]) -> np.ndarray:
    syntax = str(data.file_meta.TransferSyntaxUID)
    bits, high = whole(data, "BitsStored", 16, path.name), whole(data, "HighBit", -1, path.name)
    high = bits - 1 if high < 0 else high
    aligned = high == bits - 1
    clean = _described(path, data, bits if aligned else whole(data, "BitsAllocated", 16, path.name))
    if syntax in (*NATIVE, RLE):
        values = clean.pixel_array
        return values if aligned else _shifted(values, bits, high)
    if not aligned:
        raise InputError(
            f"{path.name} has its highest bit ({high}) not where its {bits} stored bits end, and is compressed.", "Export it uncompressed."
        )
    if "pydicom" in decoders:
        with suppress(Exception):  # the next one may do
            return clean.pixel_array
    if "gdcm" in decoders:
        with suppress(Exception):
            return _by_gdcm(clean)
        with suppress(Exception):  # it insists on samples as wide as the code stream's, which may be wider than the stored bits
            return _shifted(_by_gdcm(_described(path, data, clean.BitsAllocated)), bits, high)
    raise InputError(
        f"{path.name} is damaged or cut short, or its compression ({load_pydicom().uid.UID(syntax).name}) is not known.", "Export it uncompressed."
    )


def _shifted(values: np.ndarray, bits: int, high: int) -> np.ndarray:
    """The `bits` bits that end at bit `high`, with their sign where the type has one."""
    room = values.dtype.itemsize * 8
    return np.left_shift(values, room - 1 - high) >> (room - bits)


def _described(path: Path, data: Header, bits: int) -> Header:
    """The pixels and what describes them, in proper form."""
    pydicom = load_pydicom()
    clean = pydicom.Dataset()
    for name in _DESCRIPTION:
        default = {"SamplesPerPixel": 1, "PixelRepresentation": 0}.get(name, 0)
        setattr(clean, name, whole(data, name, default, path.name))
    clean.BitsStored, clean.HighBit, clean.PhotometricInterpretation = bits, bits - 1, "MONOCHROME2"
    clean.NumberOfFrames = max(1, whole(data, "NumberOfFrames", 1, path.name))
    for name in ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in data:
            clean[name] = data[name]
    clean.file_meta = pydicom.dataset.FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = data.file_meta.TransferSyntaxUID
    clean.set_original_encoding(*data.original_encoding)
    return clean


def _by_gdcm(clean: Any) -> np.ndarray:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID = _SECONDARY_CAPTURE
    clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID = load_pydicom().uid.generate_uid()
    with PrivateFolder() as folder:
        copy = folder / "pixels.dcm"
        clean.save_as(copy, enforce_file_format=True)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(copy))
        return sitk.GetArrayFromImage(reader.Execute())
