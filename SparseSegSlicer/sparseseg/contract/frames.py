"""What crosses to an engine on another computer: files in packed pieces, label maps as what changed of them.

A piece is packed on its own, so that any of them may be sent again, and no more memory is taken than a piece says before. Numbers of a piece are
split into their bytes (and into differences to their neighbours where that pays) before deflate, which makes them shorter than gzip does.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .box import Box, box_from_json, box_to_json, moved, shape_of, within
from .link import Frame
from .protocol import ProtocolError

PIECE_BYTES = 1 << 20  # before packing
_LEVEL, _LABEL_LEVEL = 1, 6  # 1 makes a long run of zeros four times as long as 6 does
_PLAIN, _SPLIT, _STEPS, _GAPS = "plain", "split", "steps", "gaps"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,80}(\.[A-Za-z0-9]{1,8})?", re.ASCII)
_UNITS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def checked_name(name: str) -> str:
    """Raises ProtocolError where it is not a plain file's name, of letters and digits."""
    if not _NAME.fullmatch(name):
        raise ProtocolError(f"{name!r:.80} is no name of a file.")
    return name


def digest(file: IO[bytes]) -> str:
    """The SHA-256 of a file's content, by which it is known."""
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


# -- files -------------------------------------------------------------------------------------------------------------


def parts(file: IO[bytes], name: str, unit: int = 1) -> Iterator[Frame]:
    """A file in pieces, in order. unit: bytes of each of its numbers (1, 2, 4)."""
    size = file.seek(0, os.SEEK_END)
    how = _best(file, size, unit)
    file.seek(0)
    for offset in range(0, max(size, 1), PIECE_BYTES):
        raw = file.read(PIECE_BYTES)
        yield Frame("part", {"name": name, "size": size, "offset": offset, "raw": len(raw), "unit": unit, "packing": how}, _pack(raw, unit, how))


def _best(file: IO[bytes], size: int, unit: int) -> str:
    """How the middle of it becomes shortest."""
    if unit == 1:
        return _PLAIN
    file.seek(size // 2 // unit * unit)
    sample = file.read(PIECE_BYTES)
    return min((_SPLIT, _STEPS, _PLAIN), key=lambda how: len(_pack(sample, unit, how)))


def _pack(raw: bytes, unit: int, how: str) -> bytes:
    if how == _PLAIN or len(raw) % unit:
        return zlib.compress(raw, _LEVEL) if how == _PLAIN else _pack_tail(raw, unit, how)
    numbers = np.frombuffer(raw, _UNITS[unit])
    if how == _STEPS:
        numbers = np.diff(numbers, prepend=numbers.dtype.type(0))  # wraps, and so does the sum
    return zlib.compress(np.ascontiguousarray(numbers.view(np.uint8).reshape(-1, unit).T).tobytes(), _LEVEL)


def _pack_tail(raw: bytes, unit: int, how: str) -> bytes:
    """Of a piece that ends within a number."""
    return _pack(raw + bytes(-len(raw) % unit), unit, how)


def _unpack(data: bytes, raw: int, unit: int, how: str) -> bytes:
    """Raises ProtocolError."""
    padded = raw if how == _PLAIN else raw + -raw % unit
    values = inflate(data, padded)
    if how == _PLAIN:
        return values
    numbers = np.ascontiguousarray(np.frombuffer(values, np.uint8).reshape(unit, -1).T).view(_UNITS[unit])[:, 0]
    if how == _STEPS:
        numbers = np.cumsum(numbers, dtype=numbers.dtype)
    return numbers.tobytes()[:raw]


def inflate(data: bytes, size: int) -> bytes:
    """Raises ProtocolError where that is not exactly so many bytes."""
    try:
        inflater = zlib.decompressobj()
        values = inflater.decompress(data, size) if size else b""
        if len(values) == size and (size == 0 or not inflater.decompress(inflater.unconsumed_tail, 1)):
            return values
    except zlib.error:
        pass
    raise ProtocolError("A frame is damaged.")


class Arriving:
    """Files that come in pieces into a folder; each gets its name when it is whole."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}
        self._file: IO[bytes] | None = None
        self._name, self._at = "", 0

    def part(self, frame: Frame, folder: Path) -> Path | None:
        """Write a piece; the file, where it is whole now. Raises ProtocolError, OSError."""
        name, size, offset, raw = checked_name(frame.text("name")), frame.number("size"), frame.number("offset"), frame.number("raw")
        unit, how = frame.number("unit"), frame.text("packing")
        if unit not in _UNITS or how not in (_PLAIN, _SPLIT, _STEPS) or raw > PIECE_BYTES or offset + raw > size:
            raise ProtocolError("A frame is damaged.")
        if offset == 0:
            self.abandon()
            self._path = folder / f".{name}.{os.getpid()}.part"
            self._file, self._name, self._at = open(self._path, "wb"), name, 0  # noqa: SIM115 - open until it is whole
        if self._file is None or (name, offset) != (self._name, self._at):
            raise ProtocolError(f"A piece of {name} does not fit to the ones before.")
        self._file.write(_unpack(frame.data, raw, unit, how))
        self._at += raw
        if self._at < size:
            return None
        self._file.close()
        self._file = None
        whole = folder / name
        os.replace(self._path, whole)
        return whole

    def abandon(self) -> None:
        """Drop what is not whole."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                self._path.unlink()


# -- label maps --------------------------------------------------------------------------------------------------------


def changed(before: np.ndarray, after: np.ndarray) -> Box | None:
    """The box in which two volumes of the same shape differ, (K, J, I); None where they do not."""
    differs = [np.zeros(n, bool) for n in before.shape]
    for index in range(len(before)):
        plane = before[index] != after[index]
        if plane.any():
            differs[0][index] = True
            differs[1] |= plane.any(axis=1)
            differs[2] |= plane.any(axis=0)
    if not differs[0].any():
        return None
    edges = [np.flatnonzero(axis)[[0, -1]] for axis in differs]
    k, j, i = (slice(int(first), int(last) + 1) for first, last in edges)
    return (k, j, i)


def changes(shown: np.ndarray, values: np.ndarray, box: Box) -> Iterator[Frame]:
    """What makes `shown[box]` become `values`, uint8, in pieces; `shown` becomes it here, too."""
    k, j, i = box
    planes = max(1, PIECE_BYTES // ((j.stop - j.start) * (i.stop - i.start)))
    for first in range(k.start, k.stop, planes):
        piece = (slice(first, min(k.stop, first + planes)), j, i)
        new = values[within(piece, box)]
        inside = changed(shown[piece], new)
        if inside is not None:  # often a small part of it
            there = moved(inside, [side.start for side in piece])
            data = np.bitwise_xor(shown[there], new[inside])
            shown[there] = new[inside]
            how, packed = _shortest(data)
            yield Frame("labels", {"box": box_to_json(there), **how}, packed)


def _shortest(difference: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """How it is packed, and that: as it is, or as steps from one changed voxel to the next, with what changed."""
    plain = zlib.compress(difference.tobytes(), _LABEL_LEVEL)
    flat = difference.reshape(-1)
    at = np.flatnonzero(flat)
    steps = np.diff(at, prepend=0).astype("<u4").view(np.uint8).reshape(-1, 4).T
    gaps = zlib.compress(steps.tobytes() + flat[at].tobytes(), _LABEL_LEVEL)
    return ({"packing": _PLAIN}, plain) if len(plain) <= len(gaps) else ({"packing": _GAPS, "changed": len(at)}, gaps)


def _difference(frame: Frame, size: int) -> np.ndarray:
    """Raises ProtocolError."""
    if frame.text("packing") == _PLAIN:
        return np.frombuffer(inflate(frame.data, size), np.uint8)
    count = frame.number("changed")
    if frame.text("packing") != _GAPS or not 0 < count <= size:
        raise ProtocolError("A frame is damaged.")
    values = np.frombuffer(inflate(frame.data, 5 * count), np.uint8)
    steps = np.ascontiguousarray(values[: 4 * count].reshape(4, -1).T).view("<u4")[:, 0]
    at = np.cumsum(steps, dtype=np.uint64)
    if at[-1] >= size:
        raise ProtocolError("A frame is damaged.")
    difference = np.zeros(size, np.uint8)
    difference[at] = values[4 * count :]
    return difference


def apply_changes(shown: np.ndarray, frame: Frame) -> None:
    """The other end of `changes`. Raises ProtocolError, InputError."""
    box = box_from_json(frame.fields.get("box"), shown.shape)
    if box is None:
        raise ProtocolError("A frame 'labels' needs a box.")
    shape = shape_of(box)
    size = int(np.prod(shape, dtype=np.int64))
    if size > max(PIECE_BYTES, shape[1] * shape[2]) or size > 1 << 40:
        raise ProtocolError("A frame is damaged.")
    shown[box] ^= _difference(frame, size).reshape(shape)
