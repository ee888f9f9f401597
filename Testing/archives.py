"""A DICOMweb archive for tests: QIDO-RS, WADO-RS and STOW-RS of the standard on loopback, as far as they are asked for here, with every way to fail.

It keeps files as they were given. `faults` are taken one by one, each by the next retrieval or storage; `requests` says what was asked, and with
which login.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (pip install -e '.[dicom,test]')")

ROOT = "/dicom-web"
BOUNDARY = "a boundary"
_SERIES = re.compile(rf"{ROOT}/studies/([\d.]+)/series/([\d.]+)(/instances)?")
_ELEMENTS = {"StudyInstanceUID": "0020000D", "SeriesInstanceUID": "0020000E", "Modality": "00080060", "PatientName": "00100010"}


@dataclass
class Archive:
    """base: its address. objects: files by SOP Instance UID. login: what every request must bring along, where there is one. page: rows of an answer
    at most. status: what all requests are answered with, in place of what they ask for."""

    base: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, pydicom.Dataset] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    login: str | None = None
    page: int = 1000
    counts_offset: bool = True
    searches_objects: bool = True
    elsewhere: str = ""

    def keep(self, content: bytes) -> str:
        header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True)
        self.objects[header.SOPInstanceUID], self.headers[header.SOPInstanceUID] = content, header
        return header.SOPInstanceUID

    def keep_all(self, paths: Iterable[Path]) -> str:
        """The address of the series that the last of the files belongs to."""
        for path in sorted(paths):
            uid = self.keep(path.read_bytes())
        return self.address_of(uid)

    def address_of(self, uid: str) -> str:
        header = self.headers[uid]
        return f"{self.base}/studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}"

    def of_series(self, series: str) -> list[str]:
        return [uid for uid, header in self.headers.items() if header.SeriesInstanceUID == series]

    def retrievals(self) -> int:
        return len([path for method, path, _ in self.requests if method == "GET" and (match := _SERIES.fullmatch(path)) and not match[3]])


@contextmanager
def running(archive: Archive | None = None, context=None):
    """An archive that answers while the block runs, over TLS where there is a context for it."""
    archive = archive or Archive()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"archive": archive}))
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    archive.base = f"http{'s' if context else ''}://localhost:{server.server_port}{ROOT}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    archive: Archive

    def do_GET(self):
        place = urlsplit(self.path)
        self._note("GET", place.path)
        if self._refused():
            return
        if place.path == f"{ROOT}/series":
            self._search(place.query)
        elif match := _SERIES.fullmatch(place.path):
            uids = self.archive.of_series(match[2])
            if match[3]:
                self._list_objects(uids, place.query)
            elif not uids:
                self._say(404)
            else:
                self._retrieve(uids)
        else:
            self._say(404)

    def do_POST(self):
        self._note("POST", urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._refused():
            return
        boundary = re.search(r"boundary=(\S+)", self.headers["Content-Type"])[1].encode()
        head, content = body.removesuffix(b"\r\n--" + boundary + b"--\r\n").split(b"\r\n\r\n", 1)
        assert head.startswith(b"--" + boundary) and b"application/dicom" in head
        fault = self.archive.faults.pop(0) if self.archive.faults else ""
        if fault.isdigit():
            self._say(int(fault))
        elif fault:  # a status, and the reason in hexadecimal
            status, reason = fault.split()
            self._say_json({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [int(reason, 16)]}}]}}, int(status))
        else:
            uid = self.archive.keep(content)
            self._say_json({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}})

    # ---------------------------------------------------------------- what is answered

    def _refused(self):
        archive = self.archive
        if archive.elsewhere:
            self._say(307, {"Location": archive.elsewhere + self.path})
        elif archive.login is not None and self.headers["Authorization"] != archive.login:
            self._say(401)
        else:
            return False
        return True

    def _search(self, query):
        asked = dict(parse_qsl(query))
        wanted = {name: value for name, value in asked.items() if name in _ELEMENTS}
        first = {str(header.SeriesInstanceUID): header for header in self.archive.headers.values()}
        found = [header for header in first.values() if all(str(header.get(name, "")) == value for name, value in wanted.items())]
        self._rows([{tag: _element(header, name) for name, tag in _ELEMENTS.items()} for header in found], asked)

    def _list_objects(self, uids, query):
        if self.archive.searches_objects:
            self._rows([{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids], dict(parse_qsl(query)))
        else:
            self._say(501)

    def _rows(self, rows, asked):
        start = int(asked["offset"]) if self.archive.counts_offset else 0
        page = rows[start : start + min(int(asked["limit"]), self.archive.page)]
        if page:
            self._say_json(page)
        else:
            self._say(204)

    def _retrieve(self, uids):
        archive = self.archive
        fault = archive.faults.pop(0) if archive.faults else ""
        if fault.isdigit():
            self._say(int(fault))
            return
        if fault == "silent":
            time.sleep(1)
            return
        kept = uids[:-1] if fault == "one missing" else uids
        pieces = [f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\nContent-Length: {len(archive.objects[uid])}\r\n\r\n".encode() for uid in kept]
        body = b"".join(piece + archive.objects[uid] + b"\r\n" for piece, uid in zip(pieces, kept, strict=True)) + f"--{BOUNDARY}--\r\n".encode()
        sent = body[: len(body) * 2 // 3] if fault in ("cut", "truncated") else body
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if fault == "html" else f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"')
        self.send_header("Content-Length", str(len(sent) if fault == "truncated" else len(body)))
        if fault == "packed":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        try:
            if fault == "dripping":
                for n in range(1000):
                    self.wfile.write(sent[n : n + 1])
                    self.wfile.flush()
                    time.sleep(0.01)
            self.wfile.write(sent)
        except OSError:
            pass  # who asked has left

    def _note(self, method, path):
        self.archive.requests.append((method, path, self.headers["Authorization"]))

    def _say_json(self, value, status=200):
        self._say(status, {"Content-Type": "application/dicom+json"}, json.dumps(value).encode())

    def _say(self, status, headers=None, content=b""):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing."""


def _element(header, name):
    return {"vr": "UI", "Value": [str(header.get(name, ""))]}
