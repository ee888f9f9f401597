"""Bodies of type multipart (RFC 2046), read as they come: of each part no more is held than one piece."""

from __future__ import annotations

import re
from collections.abc import Iterator

_MOST_HEADER = 16_384  # bytes before a part's content
_BOUNDARY = re.compile(r"""(?:^|;)\s*boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.IGNORECASE)


class BrokenOff(Exception):
    """The body ended before its last boundary, or is no such body at all."""


def boundary_of(content_type: str) -> bytes | None:
    """What a header Content-Type of multipart/related names as its boundary; None for another type, or where it names none."""
    kind, _, parameters = content_type.partition(";")
    found = _BOUNDARY.search(parameters) if kind.strip().lower() == "multipart/related" else None
    return (found[1] or found[2]).encode("latin-1", "replace") if found else None


def parts(pieces: Iterator[bytes], boundary: bytes) -> Iterator[Iterator[bytes]]:
    """The contents, one part after another, each in pieces; a part's pieces come before the next part is asked for.

    Raises BrokenOff, and whatever `pieces` raises.
    """
    body = _Body(pieces, b"\r\n--" + boundary)
    for _ in body.content():  # what stands before the first boundary means nothing
        pass
    while body.begins_part():
        left = body.content()
        yield left
        for _ in left:
            pass


class _Body:
    def __init__(self, pieces: Iterator[bytes], delimiter: bytes) -> None:
        self._pieces, self._delimiter = pieces, delimiter
        self._held = bytearray(b"\r\n")  # the first boundary has no line before it

    def content(self) -> Iterator[bytes]:
        """Up to the next boundary, which is taken away."""
        kept = len(self._delimiter) - 1  # so much of a boundary may have come already
        while (at := self._held.find(self._delimiter)) < 0:
            if len(self._held) > kept:
                piece = bytes(self._held[:-kept])
                del self._held[:-kept]
                yield piece
            self._more()
        piece = bytes(self._held[:at])
        del self._held[: at + len(self._delimiter)]
        if piece:
            yield piece

    def begins_part(self) -> bool:
        """Behind a boundary: past the part's header, or False where it was the last one."""
        while len(self._held) < 2:
            self._more()
        if self._held.startswith(b"--"):
            return False
        while (at := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > _MOST_HEADER:
                raise BrokenOff
            self._more()
        del self._held[: at + 4]
        return True

    def _more(self) -> None:
        piece = next(self._pieces, b"")
        if not piece:
            raise BrokenOff
        self._held += piece
