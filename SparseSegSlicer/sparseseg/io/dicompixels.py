"""The stored values of a DICOM file's pixels, through whatever decoder is there, and the same through each.

What the values mean (rescale, padding) is told by the header and applied by `dicomseries`; how they are displayed (MONOCHROME1) is nobody's
business here. pydicom decodes what its own plugins know; GDCM, in SimpleITK, knows all compressions, but inverts MONOCHROME1 and applies the
rescale of the first frame. So both are given a copy of the file that holds the pixels and what describes them, and nothing else: no name either.
They work in a process of their own (`decoder`); only what is not compressed is unpacked here, by pydicom, which is Python there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract import memory
from ..contract.errors import InputError
from .decoder import Decoder
from .dicomfile import opened
from .dicomheader import Header, has_no_preamble, load_pydicom, read_header, text, whole

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # transfer syntaxes without compression
RLE = "1.2.840.10008.1.2.5"
LOSSY = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")
_FLOATS = {"FloatPixelData": "<f4", "DoubleFloatPixelData": "<f8"}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DESCRIPTION = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")


def read_pixels(path: Path, decoder: Decoder) -> tuple[np.ndarray, Header]:
    """A file's stored values, (frames, rows, columns), and its header. Raises InputError, and anything for a damaged file."""
    with opened(path, lambda: pixel_bytes(read_header(path), path)) as file:
        data = load_pydicom().dcmread(file, force=has_no_preamble(path))
    if not text(data.file_meta, "TransferSyntaxUID"):  # old files have no meta information
        data.file_meta.TransferSyntaxUID = NATIVE[0] if data.original_encoding[0] else NATIVE[1]
    meaning = text(data, "PhotometricInterpretation") or "MONOCHROME2"
    if meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{path.name} is a colour image ({meaning}).", "Give a grey image.")
    shape = _shape(data, path)
    for name, kind in _FLOATS.items():
        if name in data:
            return _floats(data, name, kind, shape[1:]), data
    memory.check(path.name, pixel_bytes(data, path))
    return np.array(_stored(path, data, decoder)).reshape(shape), data


def _shape(header: Header, path: Path) -> tuple[int, int, int]:
    """Frames, rows, columns; whatever they are. Raises InputError."""
    rows, columns = whole(header, "Rows", 0, path.name), whole(header, "Columns", 0, path.name)
    return max(1, whole(header, "NumberOfFrames", 1, path.name)), rows, columns


def pixel_bytes(header: Header, path: Path) -> int:
    """What the pixels take that a header speaks of, as an array. Raises InputError."""
    return memory.volume_bytes(_shape(header, path), -(-whole(header, "BitsAllocated", 64, path.name) // 8))


def _floats(data: Header, name: str, kind: str, size: tuple[int, int]) -> np.ndarray:
    order = kind if str(data.file_meta.TransferSyntaxUID) != NATIVE[2] else kind.replace("<", ">")
    return np.frombuffer(data[name].value, order).reshape(-1, *size)


def _stored(path: Path, data: Header, decoder: Decoder, by: tuple[str, ...] = ("pydicom", "gdcm")) -> np.ndarray:
    syntax = str(data.file_meta.TransferSyntaxUID)
    bits, high = whole(data, "BitsStored", 16, path.name), whole(data, "HighBit", -1, path.name)
    high = bits - 1 if high < 0 else high
    aligned = high == bits - 1
    clean = _described(path, data, bits if aligned else whole(data, "BitsAllocated", 16, path.name))
    if syntax in NATIVE:
        values = clean.pixel_array
        return values if aligned else _shifted(values, bits, high)
    if not aligned and syntax != RLE:
        raise InputError(
            f"{path.name} has its highest bit ({high}) not where its {bits} stored bits end, and is compressed.", "Export it uncompressed."
        )
    needed = pixel_bytes(data, path)
    if "pydicom" in by and (found := decoder.decode(clean, "pydicom", needed)) is not None:
        return found if aligned else _shifted(found, bits, high)
    if "gdcm" in by and syntax != RLE:  # the next one may do
        if (found := decoder.decode(clean, "gdcm", needed)) is not None:
            return found
        # it insists on samples as wide as the code stream's, which may be wider than the stored bits
        wide = _described(path, data, clean.BitsAllocated)
        if (found := decoder.decode(wide, "gdcm", needed)) is not None:
            return _shifted(found, bits, high)
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
    clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID = _SECONDARY_CAPTURE
    clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID = pydicom.uid.generate_uid()
    clean.set_original_encoding(*data.original_encoding)
    return clean
