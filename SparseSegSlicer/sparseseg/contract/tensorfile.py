"""Files that torch.save wrote, read without torch, so that one from anywhere can neither run code nor take more memory than it is long.

`torch.load(weights_only=True)` runs no code either, but it unpacks what is packed, makes arrays of any length that is asked for, reads beyond an
entry that is shorter than it is said to be, and does not look at checksums. Here the description comes first, as plain values; arrays are read when
it is known that they are what they should be.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_TYPES = {  # torch's names for what numpy has, too
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2",
    "CharStorage": "<i1", "ByteStorage": "<u1", "BoolStorage": "|b1",
}  # fmt: skip
_PLAIN = {  # what torch.save writes of plain values and tensors; none of them calls anything
    "PROTO", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NEWTRUE",
    "NEWFALSE", "NONE", "BINPERSID",
}  # fmt: skip
_CALLING = {"GLOBAL", "REDUCE"}  # of what is in `_KNOWN`
_KNOWN = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", *(f"torch {name}" for name in _TYPES)}
_LONGEST_DESCRIPTION = 2 << 20  # bytes; that of a model of 254 segments is a tenth of it
_DEEPEST = 20
_MOST_AXES = 8


class UnsafeFileError(ValueError):
    """The file asks for something to be called."""


class _Storage(NamedTuple):
    """An entry of the file, as another one describes it."""

    entry: str
    type: str
    length: int


class Stored(NamedTuple):
    """An array that was not read yet. stride, offset: in numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.storage.type)


class TensorFile:
    """content: what was saved, with a Stored in place of each tensor."""

    def __init__(self, path: Path) -> None:
        """Raises OSError; UnsafeFileError for a file with code; ValueError for one that is damaged or foreign."""
        self._length = path.stat().st_size
        if not path.is_file():
            raise ValueError("no file")
        self._unread = self._length
        try:
            self._archive = zipfile.ZipFile(path)
        except Exception as error:  # zipfile raises what it likes where a file is damaged
            raise ValueError("no archive, or cut short") from error
        try:
            self._prefix, self.content = self._described()
        except BaseException:
            self._archive.close()
            raise

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def read(self, value: Any) -> Any:
        """A part of the content, its arrays read, each of its own memory. Raises ValueError."""
        if isinstance(value, Stored):
            return self._array(value)
        if isinstance(value, dict):
            return {key: self.read(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.read(part) for part in value)
        return value

    def _array(self, stored: Stored) -> np.ndarray:
        values = np.frombuffer(self._bytes(f"data/{stored.storage.entry}"), stored.dtype)
        if len(values) != stored.storage.length:
            raise ValueError("an array of another length than it is said to have")
        step = stored.dtype.itemsize
        strides = [n * step for n in stored.stride]
        return np.lib.stride_tricks.as_strided(values[stored.offset :], stored.shape, strides).copy()

    def _described(self) -> tuple[str, Any]:
        names = [name for name in self._archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            raise ValueError("no file of torch.save")
        self._prefix = names[0].removesuffix("data.pkl")
        described = self._bytes("data.pkl", _LONGEST_DESCRIPTION)
        if f"{self._prefix}byteorder" in self._archive.namelist() and self._bytes("byteorder", 16) != sys.byteorder.encode():
            raise ValueError("saved on another kind of machine")
        _check_codes(described)
        try:
            content = _Plain(described).load()
        except Exception as error:  # as pickle likes
            raise ValueError("damaged") from error
        _check_tree(content, len(described), _DEEPEST)
        return self._prefix, content

    def _bytes(self, name: str, most: int = sys.maxsize) -> bytes:
        """An entry, no longer than the file, that its checksum fits."""
        try:
            entry = self._archive.getinfo(f"{self._prefix}{name}")
        except KeyError as error:
            raise ValueError(f"no entry {name:.40}") from error
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.file_size > most:
            raise ValueError("packed, or too large")
        self._take(entry.file_size)
        try:
            return self._archive.read(entry)
        except Exception as error:  # as above
            raise ValueError("damaged: a checksum does not fit") from error

    def _take(self, size: int) -> None:
        """All that is read comes from the file once, so that nothing small can stand for much."""
        self._unread -= size
        if self._unread < 0:
            raise ValueError("holds more than it is long")


def _check_codes(described: bytes) -> None:
    """Raises UnsafeFileError, ValueError. pickletools looks at a pickle without doing what it says."""
    try:
        for code, argument, _ in pickletools.genops(described):
            if code.name == "GLOBAL" and argument not in _KNOWN:
                raise UnsafeFileError(f"asks for {argument!r:.80}")
            if code.name not in _PLAIN and code.name not in _CALLING:
                raise UnsafeFileError(f"asks for {code.name}")
            if code.name == "LONG_BINPUT" and int(argument or 0) > len(described):  # for which pickle would make room
                raise ValueError("damaged")
    except UnsafeFileError:
        raise
    except Exception as error:  # as pickletools likes
        raise ValueError("damaged") from error


def _check_tree(value: Any, most: int, deeper: int) -> int:
    """How many more parts there may be. Lists that hold each other, or the same list many times, would be more than a file can describe one by one.
    Raises ValueError."""
    if most < 0 or deeper < 0:
        raise ValueError("holds more than it is long")
    if isinstance(value, Stored) or not isinstance(value, (dict, list, tuple)):
        return most - 1
    for part in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
        most = _check_tree(part, most - 1, deeper - 1)
    return most


class _Plain(pickle.Unpickler):
    def __init__(self, described: bytes) -> None:
        super().__init__(io.BytesIO(described))

    def find_class(self, module: str, name: str) -> Any:
        """What may be called makes nothing but a Stored, and an empty table."""
        return {"OrderedDict": dict, "_rebuild_tensor_v2": _stored}.get(name) or _TYPES[name]

    def persistent_load(self, described: Any) -> _Storage:
        kind, storage_type, entry, _, length = described
        if kind != "storage" or storage_type not in _TYPES.values() or not isinstance(entry, str) or type(length) is not int or length < 0:
            raise ValueError("an array of an unknown kind")
        return _Storage(entry, storage_type, length)


def _stored(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Stored:
    if (
        not isinstance(storage, _Storage)
        or not isinstance(shape, tuple)
        or not isinstance(stride, tuple)
        or not len(shape) == len(stride) <= _MOST_AXES
    ):
        raise ValueError("an array of an unknown kind")
    if not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
        raise ValueError("an array with a shape of an unknown kind")
    stored = Stored(storage, offset, shape, stride)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if stored.size else 0
    if last >= max(1, storage.length) or stored.size > storage.length:
        raise ValueError("an array beyond its own values")
    return stored
