"""Voxels from a stream, whatever packs them, part by part into an array of the size that the header says: never more memory or disk than that, and
never less content. Where the array is, is the store's affair (`contract/store.py`).

NRRD, MetaImage and NIfTI are read here and in their modules, and not by ITK. A hostile header ends ITK's process (MetaImage with 300 dimensions: a
segmentation fault), makes it take what the header asks for, or busy for minutes (80,000 NRRD fields). The headers are a few lines of text; to read
them ourselves costs less than a process for each file, which Slicer's Python could not start, and saves the copy out of ITK's memory. What is left
to foreign code that could crash is compressed DICOM, which a process of its own decodes (`dicompixels`).
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from ..contract import memory
from ..contract.errors import InputError, TooLargeError
from ..contract.opening import MissingError, check_file, open_file, shown
from ..contract.store import IN_MEMORY, Store
from .output import COPY_AGAIN

_READ, _MADE = 1 << 18, 1 << 20  # bytes taken from a stream, and made of them, at a time
_DEFLATE_MOST = 1032  # bytes that deflate can make of one, at most
_GZIP_OR_ZLIB = 47  # zlib's word for: see from the first bytes which it is
_SLACK = 1 << 16
_MOST_PARTS = 100_000  # files that hold one volume
_BLANKS = b" \t\r\n\v\f"


def read(
    path: Path, file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], packing: str | None = None, skip: int = 0, store: Store = IN_MEMORY
) -> np.ndarray:
    """An array in the machine's byte order from the stream's position on. packing: "raw", "gzip" (or zlib), "text" (numbers), "hex"; None: the file's
    first bytes tell whether it is packed whole. skip: bytes of what is inside, before the voxels.

    path: for what is said. Raises InputError where less memory is free or a packed stream holds more than the array, EOFError where it ends too
    early, ValueError, OverflowError and zlib.error for what cannot be unpacked; OutputError as the store does.
    """
    if packing is None:
        packing = "gzip" if is_gzip(_peeked(file, 2)) else "raw"
    if skip < 0:
        raise ValueError(f"skips {skip} bytes")
    if packing == "raw":
        file.seek(skip, os.SEEK_CUR)
    _check_holds(path, file, dtype, shape, packing)
    return store.keep(path.name, shape, dtype.newbyteorder("="), _parts(path, file, dtype, math.prod(shape), packing, skip))


def is_gzip(head: bytes) -> bool:
    return head.startswith(b"\x1f\x8b")


def beginning(file: IO[bytes], count: int) -> bytes:
    """The first bytes of what a file holds, packed by gzip or not, as far as it can be unpacked; the file's position stays at its beginning."""
    file.seek(0)
    head = _peeked(file, count)
    if is_gzip(head):
        with suppress(EOFError, zlib.error):
            head = _first_bytes(inflated(file), count)
        file.seek(0)
    return head


def _peeked(file: IO[bytes], count: int) -> bytes:
    here = file.tell()
    head = file.read(count)
    file.seek(here)
    return head


def _first_bytes(pieces: Iterator[bytes], count: int) -> bytes:
    found = b""
    for piece in pieces:
        found += piece[:count]
        if len(found) >= count:
            break
    return found[:count]


def _check_holds(path: Path, file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], packing: str) -> None:
    """Raises EOFError where the file cannot hold so much, however it is packed: before any space is taken."""
    if min(shape, default=0) < 1:
        raise EOFError(f"{path} has an axis without voxels")
    here = os.fstat(file.fileno()).st_size - file.tell()
    most = {"raw": here, "gzip": here * _DEFLATE_MOST + _SLACK, "text": (here + 1) // 2 * dtype.itemsize, "hex": here // 2}[packing]
    if memory.volume_bytes(shape, dtype.itemsize) > most:
        raise _too_little(path)


def _parts(path: Path, file: IO[bytes], dtype: np.dtype, count: int, packing: str, skip: int = 0) -> Iterator[np.ndarray]:
    """`count` elements, part by part; skip: bytes of what a packed stream holds, before them."""
    if packing == "text":
        return _numbers(path, file, dtype, count)
    size = count * dtype.itemsize
    unpack = {"raw": lambda: _raw(file, size), "gzip": lambda: _without_first(inflated(file), skip), "hex": lambda: _from_hex(file)}[packing]
    return (np.frombuffer(piece, dtype) for piece in _of_size(path, unpack(), size, dtype.itemsize))


def _raw(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (piece := file.read(min(size, _MADE))):
        yield piece
        size -= len(piece)


def _of_size(path: Path, pieces: Iterator[bytes], size: int, itemsize: int) -> Iterator[bytes]:
    """The pieces, cut between elements, to the stream's very end, where a packed one has its check sum. Raises TooLargeError, EOFError where they are
    not of this size together."""
    rest = b""
    for piece in pieces:
        if len(rest) + len(piece) > size:
            raise too_much(path)
        piece = rest + piece if rest else piece
        whole = len(piece) - len(piece) % itemsize
        yield piece[:whole]
        rest, size = piece[whole:], size - whole
    if size:
        raise _too_little(path)


def _too_little(path: Path) -> EOFError:
    return EOFError(f"{path} is shorter than its header says")


def _without_first(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count < len(piece):
            yield piece[count:]
        count = max(0, count - len(piece))


def too_much(path: Path) -> TooLargeError:
    return TooLargeError(f"{path.name} holds more than its header says.", COPY_AGAIN)


def inflated(file: IO[bytes], bits: int = _GZIP_OR_ZLIB) -> Iterator[bytes]:
    """What a packed stream holds, a piece at a time; of several gzip members all, as gzip has them. Raises zlib.error, EOFError."""
    data = file.read(_READ)
    while data:
        packed = zlib.decompressobj(bits)
        while not packed.eof:
            if not data and not (data := file.read(_READ)):
                raise EOFError("a packed stream ends too early")
            if piece := packed.decompress(data, _MADE):
                yield piece
            data = packed.unconsumed_tail
        data = _after_zeros(packed.unused_data, file)
        if bits != _GZIP_OR_ZLIB or not is_gzip(data):
            return


def _after_zeros(data: bytes, file: IO[bytes]) -> bytes:
    """What follows a member of a packed stream: padding may stand between two."""
    while not (data := data.lstrip(b"\0")):
        if not (data := file.read(_READ)):
            return b""
    return data + file.read(1) if len(data) == 1 else data


def _from_hex(file: IO[bytes]) -> Iterator[bytes]:
    odd = b""
    while text := file.read(_READ):
        digits = odd + text.translate(None, _BLANKS)
        odd = digits[len(digits) // 2 * 2 :]
        yield bytes.fromhex(digits[: len(digits) - len(odd)].decode("ascii"))


def _numbers(path: Path, file: IO[bytes], dtype: np.dtype, count: int) -> Iterator[np.ndarray]:
    number: Callable[[bytes], float] = float if dtype.kind == "f" else int
    for words in _words(file):
        found = [number(word) for word in words[:count]]
        yield np.array(found, dtype)
        count -= len(found)
        if not count:
            return
    raise _too_little(path)


def _words(file: IO[bytes]) -> Iterator[list[bytes]]:
    """The words of a text, many at a time. Raises ValueError where one is too long to be a number."""
    rest = b""
    while text := file.read(_READ):
        words = (rest + text).split()
        rest = words.pop() if words and not text[-1:].isspace() else b""
        if len(rest) > _SLACK:
            raise ValueError("a word without end")
        yield words
    if rest:
        yield [rest]


def shape_of(sizes: list[int]) -> tuple[int, ...]:
    """Sizes as a header has them, fastest first, as an array's. Raises ValueError for what no array can have."""
    if not sizes or min(sizes) < 1 or math.prod(sizes) >= 1 << 62:
        raise ValueError(f"sizes {sizes!r:.80}")
    return tuple(reversed(sizes))


# ---------------------------------------------------------------- voxels in other files


def beside(path: Path, name: str) -> Path:
    """The file of this name in the folder of `path`, a header. Raises InputError where it is not there, or no file."""
    data = path.parent / name
    try:
        check_file(data)
    except MissingError as error:
        advice = "Copy both files into one folder, or save as one file."
        raise InputError(f"{path.name} needs {shown(Path(name))}, which is not beside it.", advice) from error
    return data


def numbered(text: str) -> Iterator[str]:
    """The names of `slice%03d.raw FIRST LAST STEP`. Raises ValueError."""
    pattern, first, last, step, *_ = [*text.split(), "1"]
    form = re.fullmatch(r"([^%]*)%(0?\d{0,2})[diu]([^%]*)", pattern)
    if form is None or int(step) == 0 or not 0 < (int(last) - int(first)) // int(step) + 1 <= _MOST_PARTS:
        raise ValueError(f"names {text!r:.80}")
    for number in range(int(first), int(last) + (1 if int(step) > 0 else -1), int(step)):
        yield f"{form[1]}{number:{form[2]}d}{form[3]}"


def read_parts(
    path: Path,
    files: Sequence[Path],
    dtype: np.dtype,
    shape: tuple[int, ...],
    packing: str,
    skipped: Callable[[IO[bytes], int], IO[bytes]],
    store: Store = IN_MEMORY,
) -> np.ndarray:
    """As `read`, from several files that hold equal parts, the slowest axis in turn; skipped: puts a file, with so many bytes of voxels, where these
    begin."""
    size = memory.volume_bytes(shape, dtype.itemsize)
    most = _DEFLATE_MOST * sum(check_file(file).st_size + _SLACK for file in files)
    if not 0 < len(files) <= _MOST_PARTS or math.prod(shape) % len(files) or size > most:
        raise _too_little(path)

    def parts() -> Iterator[np.ndarray]:
        for file in files:
            with open_file(file) as data:
                yield from _parts(file, skipped(data, size // len(files)), dtype, math.prod(shape) // len(files), packing)

    return store.keep(path.name, shape, dtype.newbyteorder("="), parts())
