"""An Orthanc archive of a test's own, on loopback, and servers in general: started, waited for, ended whatever happens."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 60  # for a server to start or a tool to end, on a busy machine
SENDER, ARCHIVE = "SENDER", "ARCHIVE"
DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def free_port():
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


@contextmanager
def running(command, log, answers):
    """A server while the block runs, from when `answers()` is true; its output goes to the file `log`. It is ended whatever happens."""
    with log.open("wb") as output:
        server = subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE_S
        while not answers():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield server
    finally:
        server.terminate()
        try:
            server.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def listens(port):
    with socket.socket() as door:
        door.settimeout(1)
        return door.connect_ex(("127.0.0.1", port)) == 0


class Orthanc:
    """An archive of its own, with all it stores in `folder`. It talks to this machine only: HTTP by RemoteAccessAllowed, DICOM by the list of
    known modalities and their host."""

    def __init__(self, folder: Path, *plugins: Path):
        self.http, self.dicom, self.fetcher = free_port(), free_port(), free_port()
        self.configuration = folder / "orthanc.json"
        known = {"AET": SENDER, "Host": "127.0.0.1", "Port": self.fetcher, "AllowEcho": True, "AllowStore": True, "AllowFind": True}
        settings = {
            "Name": "tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": list(map(str, plugins)),
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomPort": self.dicom,
            "DicomAet": ARCHIVE,
            "DicomCheckCalledAet": True,
            "DicomCheckModalityHost": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": {"tests": {**known, "AllowGet": True, "AllowMove": True}},
        }
        self.configuration.write_text(json.dumps(settings), encoding="utf-8")

    def request(self, method, path, data=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.read()

    def file(self, uid):
        """A stored object, as a DICOM file."""
        return self.request("GET", f"/instances/{self.instance(uid)}/file")

    def json(self, path):
        return json.loads(self.request("GET", path))

    def answers(self):
        try:
            return self.json("/system")["DicomAet"] == ARCHIVE and listens(self.dicom)
        except OSError:
            return False

    def instance(self, uid):
        """Orthanc's own ID of an object."""
        (found,) = [item for item in json.loads(self.request("POST", "/tools/lookup", uid.encode())) if item["Type"] == "Instance"]
        return found["ID"]
