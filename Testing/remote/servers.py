"""A real sshd on this computer, with keys, port and settings of its own, run as the current user; and lines to it that are slow."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import sparseseg
import talking
from sparseseg.contract.remote import RemoteClient
from sparseseg.contract.server import Server

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
PACKAGES = str(Path(sparseseg.__file__).parents[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Sshd:
    """`environment` is what its sessions start with; `ssh` on the path of this process knows its key and its host key."""

    def __init__(self, folder, environment):
        self.folder, self.port = folder, free_port()
        for name in ("host_key", "user_key", "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        (folder / "authorized_keys").write_text((folder / "user_key.pub").read_text())
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host_key.pub').read_text()}")
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 50\n"
            + (f"SetEnv {' '.join(f'{name}={value}' for name, value in environment.items())}\n" if environment else "")
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it
        self._log = open(folder / "sshd.log", "wb")  # noqa: SIM115
        self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=self._log)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            time.sleep(0.05)
        self.configure()

    def configure(self, key="user_key", hosts="known_hosts"):
        """What the program `ssh` takes from here on."""
        (self.folder / "config").write_text(
            f"Host *\n IdentityFile {self.folder}/{key}\n IdentitiesOnly yes\n IdentityAgent none\n"
            f" UserKnownHostsFile {self.folder}/{hosts}\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n"
        )
        wrapper = self.folder / "bin" / "ssh"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh", path=os.defpath)} -F {self.folder}/config "$@"\n')
        wrapper.chmod(0o755)

    def address(self, python=sys.executable, port=None):
        return f"ssh://{getpass.getuser()}@127.0.0.1:{port or self.port}?python={python}"

    def server(self, **options):
        return Server.parse(self.address(**options))

    def lock_out(self):
        """Accept nobody from here on; connections stay."""
        (self.folder / "authorized_keys").write_text("")

    def let_in(self):
        (self.folder / "authorized_keys").write_text((self.folder / "user_key.pub").read_text())

    def kill_keepers(self):
        """As the end of the server does."""
        for lock in self.temporary.glob("sparseseg-*/host.lock"):
            os.kill(int(lock.read_text()), signal.SIGKILL)

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._log.close()


class Talk(talking.Talk):
    """An engine over ssh."""

    def __init__(self, server, **options):
        super().__init__(RemoteClient(server, **options))


class Relay:
    """A port on this computer that passes on to another one, so many bytes a second in each direction."""

    def __init__(self, port, bytes_per_s):
        self._to, self._rate = port, bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.passed = [0, 0]  # there, back
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                for way, (a, b) in enumerate(((near, far), (far, near))):
                    a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                    threading.Thread(target=self._pass, args=(a, b, way), daemon=True).start()

    def _pass(self, source, target, way):
        due = time.monotonic()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14):
                due = max(due, time.monotonic()) + len(data) / self._rate
                time.sleep(max(0.0, due - time.monotonic()))
                target.sendall(data)
                self.passed[way] += len(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()
