"""Series from a DICOMweb archive and results into it: QIDO-RS, WADO-RS and STOW-RS of the DICOM standard, part 18.

With requests of its own, not those of the package dicomweb-client: that holds an object in memory however long it gets, has pydicom read it before
its size is looked at, and takes what a broken connection has left of one for the whole. Here a series goes to disk in pieces, as it is stored.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from .. import io
from ..contract import disk, memory
from ..contract.errors import InputError, TooLargeError
from ..contract.folders import PrivateFolder, write_whole, writing
from ..contract.opening import check_file
from .multipart import BrokenOff, boundary_of, parts
from .web import PIECE, Passing, Refused, Server, pieces

JSON, DICOM = "application/dicom+json", "application/dicom"
_STUDY, _SERIES, _OBJECT = "0020000D", "0020000E", "00080018"
_FAILED, _REASON = "00081198", "00081197"
_CONFLICT, _IS_THERE = 409, "reason 0111"  # what STOW-RS answers where nothing was stored; a duplicate, which an earlier try may have left
_ADDRESS = re.compile(r"(https?://.+?)/studies/([^/]+)/series/([^/]+)/?")
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
_PAGE, _MOST_ROWS, _MOST_BYTES = 500, 1_000_000, 64_000_000  # of an answer to a query: rows asked for at once, rows in all, bytes of a page
_MOST_OBJECTS = 100_000  # of a series
_SPARE_BYTES = 200_000_000  # on the disk, for others
_LOOK_BYTES = 1 << 24  # what comes between two looks at what is free
_NO_SEARCH = (400, 404, 405, 406, 501)  # what a server says that cannot search for the objects of a series
Tick = Callable[[], None]


@dataclass(frozen=True)
class SeriesAddress:
    """Of one series in an archive: what stands before /studies, and the UIDs."""

    base: str
    study: str
    series: str

    def __str__(self) -> str:
        return f"{self.base}{self.path}"

    @property
    def path(self) -> str:
        return f"/studies/{self.study}/series/{self.series}"


def is_address(image: str) -> bool:
    """Whether an image of a list lies in an archive, and not on this machine."""
    return image.startswith(("https://", "http://"))


def series_at(address: str) -> SeriesAddress:
    """Raises InputError for what is no address of a series."""
    match = _ADDRESS.fullmatch(address)
    if match is None or not all(_UID.fullmatch(uid) for uid in match.groups()[1:]):
        raise InputError(
            f"{address[:200]!r} is no address of a series in a DICOMweb archive.", "Write it as https://HOST/PATH/studies/UID/series/UID."
        )
    return SeriesAddress(*match.groups())


# ---------------------------------------------------------------- QIDO-RS


def find(base: str, query: str, insecure: bool = False) -> list[SeriesAddress]:
    """The series that a query finds, as "Modality=CT&StudyDescription=Head*": sorted, each once. Raises InputError, also where there is none,
    and ServerError."""
    server = Server.at(base, insecure)
    wanted = _parsed(query)
    found = {SeriesAddress(server.base, _uid(row, _STUDY, server), _uid(row, _SERIES, server)) for row in _rows(server, "/series", wanted, _SERIES)}
    if not found:
        raise InputError(
            f"{server.host} finds no series for this query.",
            "Names are those of DICOM's elements (Modality, StudyDescription); * stands for any text.",
        )
    return sorted(found, key=str)


def _parsed(query: str) -> list[tuple[str, str]]:
    try:
        wanted = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise InputError("The query is not understood.", "Write it as Modality=CT&StudyDescription=Head*.") from error
    if taken := {name for name, _ in wanted} & {"limit", "offset"}:
        raise InputError(f"The query sets {min(taken)}, which is set here to read page by page.", "Leave it out.")
    return wanted


def _rows(server: Server, path: str, wanted: list[tuple[str, str]], tag: str) -> Iterator[dict[str, Any]]:
    """What is found, each `tag` once; page by page, until one has nothing new: not every server counts `offset`."""
    seen: set[str] = set()
    offset = 0
    while True:
        asked = urlencode(
            [*wanted, ("limit", _PAGE), ("offset", offset)], safe="*?,", quote_via=quote
        )  # not every server decodes what means any text
        content = server.patiently(lambda asked=asked: server.read(f"{path}?{asked}", JSON, _MOST_BYTES))  # type: ignore[misc]
        page = _listed(content, server)
        fresh = [row for row in page if (uid := _uid(row, tag, server)) not in seen and not seen.add(uid)]  # type: ignore[func-returns-value]
        yield from fresh
        if not fresh:
            return
        if len(seen) > _MOST_ROWS:
            raise InputError(f"{server.host} finds more than {_MOST_ROWS:,} of them.", "Narrow the query.")
        offset += len(page)


def _listed(content: bytes, server: Server) -> list[dict[str, Any]]:
    try:
        rows = json.loads(content) if content.strip() else []
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{server.host} answers a query with something else than a list.", "Check that the address is that of its DICOMweb service.")
    return rows


def _uid(row: dict[str, Any], tag: str, server: Server) -> str:
    element = row.get(tag)
    given = element.get("Value") if isinstance(element, dict) else None
    uid = given[0] if isinstance(given, list) and given else None
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise InputError(f"{server.host} lists something without the UID that it should have ({tag}).", "Ask who runs the server.")
    return uid


def write_list(path: Path, found: Sequence[SeriesAddress]) -> None:
    """As a list of patients (CSV), each called by its series' UID. Raises OutputError."""
    text = "".join(f"{name},{image}\n" for name, image in [("name", "image"), *((each.series, str(each)) for each in found)])
    with writing(path.parent):
        write_whole(path, lambda file: file.write(text.encode("utf-8")))


# ---------------------------------------------------------------- WADO-RS


@contextmanager
def at_hand(images: tuple[str, ...], insecure: bool = False, tick: Tick = lambda: None) -> Iterator[tuple[Path, ...]]:
    """A patient's images as paths, while the block runs: files and folders as they are, series of an archive in private folders (0700) that are
    removed at its end; a result that is to become DICOM is written before. tick: called between two pieces, and may raise.

    Raises InputError, TooLargeError for a series that memory or disk cannot hold, ServerError for what may be there later, OutputError.
    """
    with ExitStack() as stack:
        yield tuple(stack.enter_context(_retrieved(image, insecure, tick)) if is_address(image) else Path(image) for image in images)


@contextmanager
def _retrieved(address: str, insecure: bool, tick: Tick) -> Iterator[Path]:
    wanted = series_at(address)
    server = Server.at(wanted.base, insecure)
    with PrivateFolder() as folder:
        retrieval = _Retrieval(server, wanted, folder / wanted.series, tick)
        with writing(folder):
            listed = retrieval.listed()
            server.patiently(lambda: retrieval.run(listed))
        yield retrieval.folder


class _Retrieval:
    """All objects of one series, each in a file of its own, as the archive has them (in whatever transfer syntax)."""

    def __init__(self, server: Server, wanted: SeriesAddress, folder: Path, tick: Tick) -> None:
        self.server, self.wanted, self.folder, self._tick = server, wanted, folder, tick
        self._bytes = self._looked = 0

    def listed(self) -> set[str]:
        """The UIDs of what the archive has of the series, to compare with what comes; none where it cannot be searched for them."""
        try:
            return {_uid(row, _OBJECT, self.server) for row in _rows(self.server, f"{self.wanted.path}/instances", [], _OBJECT)}
        except Refused as error:
            if error.status in _NO_SEARCH:
                return set()
            raise

    def run(self, listed: set[str]) -> None:
        """One try, from the beginning. Raises Passing, InputError, OSError."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        self._bytes = self._looked = 0
        accept = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
        there: list[str] = []
        with self.server.answer(self.wanted.path, accept) as reply:
            boundary = boundary_of(reply.headers.get("Content-Type", ""))
            if boundary is None:
                kind = reply.headers.get("Content-Type", "nothing").partition(";")[0]
                raise InputError(f"{self.server.host} sends {kind[:60]} in place of DICOM objects.", "Ask who runs the server.")
            try:
                for content in parts(pieces(reply), boundary):
                    there.append(self._keep(content, len(there)))
            except BrokenOff as error:
                raise Passing("ended its answer in the middle") from error
        if missing := len(listed - set(there)):
            raise Passing(f"sent {len(there)} objects of the series and left out {missing}")
        if not there:
            raise InputError(
                f"{self.server.host} sends no object of the series {self.wanted.series}.", "Check the address, or query the server again."
            )

    def _keep(self, content: Iterator[bytes], number: int) -> str:
        """Write one object; its UID."""
        if number >= _MOST_OBJECTS:
            raise TooLargeError(f"The series {self.wanted.series} has more than {_MOST_OBJECTS:,} objects.", "Check that it is a series of images.")
        path = self.folder / f"{number + 1:06}.dcm"
        with path.open("wb") as file:
            for piece in content:
                file.write(piece)
                self._count(len(piece))
        found = io.read_instance(path)
        if found.series != self.wanted.series:
            raise InputError(f"{self.server.host} sends an object of another series than {self.wanted.series}.", "Ask who runs the server.")
        return found.uid

    def _count(self, length: int) -> None:
        """Raises TooLargeError where what has come so far is more than memory or disk can hold."""
        self._tick()
        self._bytes += length
        if self._bytes - self._looked >= _LOOK_BYTES:
            self._looked = self._bytes
            name = f"The series {self.wanted.series}"
            memory.check(name, self._bytes)
            free = disk.free_bytes(self.folder)
            if free is not None and free < _SPARE_BYTES:
                sentence = f"{name} has more than {self._bytes // 10**6} MB, and {free // 10**6} MB are left in {self.folder.parent.parent}."
                raise TooLargeError(sentence, "Free space, or set TMPDIR to a folder with more.")


# ---------------------------------------------------------------- STOW-RS


def store(base: str, file: Path, insecure: bool = False) -> None:
    """Send one DICOM file to an archive. Raises InputError or ServerError where it is not stored; it may be sent again."""
    server = Server.at(base.rstrip("/").removesuffix("/studies"), insecure)
    size = check_file(file).st_size
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode("ascii")
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")

    def body() -> Iterator[bytes]:
        yield head
        with file.open("rb") as content:
            while piece := content.read(PIECE):
                yield piece
        yield tail

    headers = {"Content-Type": f'multipart/related; type="{DICOM}"; boundary={boundary}', "Content-Length": str(len(head) + size + len(tail))}
    try:
        said = _failure(server.patiently(lambda: server.read("/studies", JSON, _MOST_BYTES, body, headers)))
    except Refused as error:
        if error.status != _CONFLICT:
            raise
        said = _failure(error.content) or "it does not say why"
    if said not in ("", _IS_THERE):
        raise InputError(f"{server.host} does not store {file.name} ({said}).", "Ask who runs the server; the file is kept.")


def _failure(content: bytes) -> str:
    """Why an object was not stored, by what the server says of it; empty where it was."""
    try:
        answer = json.loads(content) if content.strip() else {}
        answer = answer[0] if isinstance(answer, list) else answer
        failed = answer.get(_FAILED, {}).get("Value", [])
        return ", ".join(f"reason {int(item[_REASON]['Value'][0]):04X}" for item in failed)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):  # no JSON, or of another form
        return "it does not say why" if _FAILED.encode() in content else ""
