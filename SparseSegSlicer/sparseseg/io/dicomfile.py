"""A DICOM file as pydicom may have it: a file that is one, with no more elements than headers of the field have, and, where it is deflated, inflated
no further than its own header says. pydicom itself inflates whole files, and spends 30 microseconds on each of the items that a hostile header
repeats; so elements are counted here first, in a thirtieth of that time, and nothing is kept of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO

from ..contract import memory
from ..contract.errors import TooLargeError
from ..contract.opening import open_file
from . import voxels

MOST_HEADER_BYTES = 64_000_000  # of a deflated file; far above what ten thousand frames need
_MOST_ELEMENTS, _ITEM, _ODD = 750_000, 5, 100  # at most; an item of a sequence and what is no element count as so many: pydicom takes as long
_BYTES_OF_ELEMENT = 250  # in pydicom, each, besides its value
_PREAMBLE, _RAW_DEFLATE, _UNDEFINED = 132, -15, 0xFFFFFFFF
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"  # of equal length
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}  # with a length of four bytes
_IN_ITEMS, _ITEM_TAG = 0xFFFE, 0xE000
_PIXELS = (0x7FE0, 0x0010)


def opened(path: Path, pixels: Callable[[], int] | None = None) -> IO[bytes]:
    """To be read from its beginning, and closed. pixels: how many bytes of pixel data there are, asked of a deflated file; None: only its header,
    which comes first.

    Raises InputError for what is no file, has too many elements or inflates to more than it should, OSError, zlib.error.
    """
    file = open_file(path)
    try:
        start, syntax = _meta(file)
        if syntax is not None:
            file.seek(start)
            most = MOST_HEADER_BYTES + (pixels() if pixels else 0)
            memory.check(path.name, most)
            inflated = _inflated(path, file, most, cut=pixels is None)
            file.seek(0)
            content = file.read(start).replace(_DEFLATED, _EXPLICIT) + inflated
            file.close()
            _check_elements(path, content, start)
            return BytesIO(content)
        if pixels is None:  # else the header was read before, and counted then
            with mmap(file.fileno(), 0, access=ACCESS_READ) as content:  # type: ignore[assignment]
                _check_elements(path, content, start)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _meta(file: IO[bytes]) -> tuple[int, bytes | None]:
    """Where the elements behind the meta information begin; and the transfer syntax, where that says that they are deflated."""
    at, syntax = (_PREAMBLE, None) if file.read(_PREAMBLE).endswith(b"DICM") else (0, None)
    while True:
        file.seek(at)
        head = file.read(12)
        if len(head) < 12 or not head.startswith(b"\2\0"):
            return at, syntax
        short = head[4:6] not in _LONG
        length = int.from_bytes(head[6:8] if short else head[8:12], "little")
        at += 8 if short else 12
        if head[2:4] == b"\x10\0":
            file.seek(at)
            syntax = _DEFLATED if file.read(min(length, 64)).rstrip(b"\0 ") == _DEFLATED else syntax
        at += length


def _inflated(path: Path, file: IO[bytes], most: int, cut: bool) -> bytes:
    """cut: what is more is left where it is; else it is refused."""
    made = bytearray()
    for piece in voxels.inflated(file, _RAW_DEFLATE):
        made += piece
        if len(made) > most:
            if cut:
                break
            raise voxels.too_much(path)
    return bytes(made)


def _check_elements(path: Path, content: bytes | mmap, start: int) -> None:
    """Raises TooLargeError."""
    count = _Count(path, content)
    count.walk(start, len(content))
    memory.check(path.name, count.elements * _BYTES_OF_ELEMENT)


def too_many(path: Path) -> TooLargeError:
    return TooLargeError(f"{path.name} has more elements than the header of a DICOM file can need.", "Export it again, in several files.")


class _Count:
    """Steps over a file's elements and into its sequences, as far as it can follow."""

    def __init__(self, path: Path, content: bytes | mmap) -> None:
        self.elements = 0
        self._path, self._content = path, content

    def walk(self, at: int, end: int, implicit: bool | None = None) -> None:
        """implicit: without value representations; None: the first element tells. Raises TooLargeError."""
        content = self._content
        order = ">" if content[at : at + 2] in (b"\0\2", b"\0\x08") else "<"
        tag_of, long_of = struct.Struct(order + "HH").unpack_from, struct.Struct(order + "I").unpack_from
        short_of = struct.Struct(order + "H").unpack_from
        if implicit is None:
            implicit = not all(b"A"[0] <= letter <= b"Z"[0] for letter in content[at + 4 : at + 6])
        while at + 8 <= end:
            tag = tag_of(content, at)
            kind = content[at + 4 : at + 6]
            if tag[0] == _IN_ITEMS:
                self._add(_ITEM)
                at += 8
                continue
            explicit = not implicit and b"AA" <= kind <= b"ZZ"  # as pydicom tells it, which decides where the next one begins
            self._add(1 if (explicit or implicit) and any(tag) else _ODD)
            if explicit and kind not in _LONG:
                at += 8 + short_of(content, at + 6)[0]
                continue
            place = at + 8 if explicit else at + 4
            if place + 4 > end:
                return
            length, at = long_of(content, place)[0], place + 4
            if length == _UNDEFINED:
                at = self._behind_fragments(at, end) if tag == _PIXELS else at
            elif explicit and kind == b"UN" and self._begins_with_item(at):
                self.walk(at, min(end, at + length), implicit=True)
                at += length
            elif not (explicit and kind == b"SQ") and (explicit or not self._begins_with_item(at)):
                at += length

    def _add(self, count: int) -> None:
        self.elements += count
        if self.elements > _MOST_ELEMENTS:
            raise too_many(self._path)

    def _begins_with_item(self, at: int) -> bool:
        return self._content[at : at + 4] in (b"\xfe\xff\0\xe0", b"\xff\xfe\xe0\0")

    def _behind_fragments(self, at: int, end: int) -> int:
        """Encapsulated pixels: pieces, each with its length, that are no elements."""
        while at + 8 <= end:
            group, element, length = struct.unpack_from("<HHI", self._content, at)
            at += 8
            if (group, element) != (_IN_ITEMS, _ITEM_TAG):
                return at
            self._add(1)
            at += length
        return at
