"""Another computer that the engine runs on: its address, the `ssh` that reaches it, and what went wrong on the way, in words.

The connection is the system's own OpenSSH client, with the user's config, keys, agent, known hosts and jump hosts. It never asks (BatchMode): what
it would ask is answered once, in a terminal. Standard library only.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, unquote

from .. import __version__
from .child import child_options, program, run
from .errors import ServerError
from .link import REMOTE_VERSION
from .protocol import PROTOCOL_VERSION

_ADDRESS = re.compile(r"ssh://(?:(?P<user>[^@/?#]*)@)?(?P<host>\[[^\]/?#]*\]|[^:/?#@]*)(?::(?P<port>\d{1,5}))?/?(?:\?(?P<query>[^#]*))?", re.ASCII)
_USER = re.compile(r"[\w.+\\][\w.+\\@-]*", re.ASCII)
_HOST = re.compile(r"[\w.][\w.:%-]*|::[\w.:%]*", re.ASCII)
_PYTHON = re.compile(r"[\w./~][\w./~+ -]*", re.ASCII)
_OPTIONS = {
    "BatchMode": "yes",  # never ask
    "ConnectTimeout": 15,
    "ServerAliveInterval": 5,
    "ServerAliveCountMax": 3,
    "ControlMaster": "no",  # what the user's config may want of other connections: this one ends when it is ended,
    "ClearAllForwardings": "yes",  # takes no ports,
    "RemoteCommand": "none",  # and has a command of its own
}
_SOURCE = "git+https://github.com/SparseSegSlicer/SlicerSparseSeg.git"
_VENV = "sparseseg-engine"  # in the home folder there
_FIND_PYTHON = f'p={_VENV}/bin/python; test -x $p || p=python3; exec $p "$@"'  # ssh starts in the home folder
_HELLO_S, _DOCTOR_S = 60.0, 300.0
_SAID = 200  # characters of what ssh or the server said
_EXAMPLE = "Write for example ssh://anna@gpu.hospital.org, with :PORT behind it where that is not 22."


def no_ssh(error: OSError) -> ServerError:
    return ServerError(
        f"The program ssh could not be started ({error.strerror or error}).",
        "Install OpenSSH's client: on Windows it is one of the optional features, on Linux the package openssh-client.",
    )


@dataclass(frozen=True)
class Server:
    """`ssh://user@host:port?python=PATH`: user and port may be missing, and are ssh's own then; python: the interpreter there that has the engine;
    where none is named, that of the folder that `install` makes, else the system's."""

    host: str
    user: str = ""
    port: int = 0
    python: str = "python3"

    @classmethod
    def parse(cls, text: str) -> Server:
        """Raises ServerError where it is no such address."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise ServerError(f"{text[:_SAID]!r} is no address of an engine.", _EXAMPLE)
        user, host, port = unquote(found["user"] or ""), found["host"].strip("[]"), int(found["port"] or 0)
        if ":" in user:
            raise ServerError("An address may not hold a password.", "Use a key: ssh-keygen makes one, ssh-copy-id brings it to the server.")
        if (user and not _USER.fullmatch(user)) or not _HOST.fullmatch(host) or port > 65535:
            raise ServerError(f"{text[:_SAID]!r} is no address of an engine.", _EXAMPLE)
        options = parse_qs(found["query"] or "", keep_blank_values=True)
        if set(options) - {"python"} or any(len(values) > 1 for values in options.values()):
            raise ServerError(f"{text[:_SAID]!r} has options that are not known.", "There is one: ?python=PATH, the Python on the server.")
        return cls(host, user, port).with_python(options.get("python", ["python3"])[0])

    def with_python(self, python: str) -> Server:
        """Raises ServerError for a path that a shell may take for something else."""
        if not _PYTHON.fullmatch(python):
            raise ServerError(f"{python[:_SAID]!r} is no path of a Python.", "Give the path of the Python on the server that has the engine.")
        return replace(self, python=python.removeprefix("~/"))  # ssh starts in the home folder

    @property
    def title(self) -> str:
        """For people; ssh takes it too."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def login(self) -> list[str]:
        """The words of a terminal's command that reaches the server."""
        return ["ssh", *(["-p", str(self.port)] if self.port else []), self.title]

    def command(self, *words: str) -> list[str]:
        """The local command line that runs our package there, `python -P -m sparseseg WORDS`, in any shell that takes sh's quotes."""
        python = ["sh", "-c", _FIND_PYTHON, "sparseseg"] if self.python == "python3" else [self.python]
        remote = ["env", "PYTHONSAFEPATH=1", "PYTHONUTF8=1", *python, "-P", "-m", "sparseseg", *words]
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        where = [*(["-p", str(self.port)] if self.port else []), *(["-l", self.user] if self.user else []), "--", self.host]
        return ["ssh", "-T", *options, *where, shlex.join(remote)]

    def examine(self, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What `sparseseg doctor --json` says there, with `protocol` and `remote`. environment: of `ssh`. Waits, a minute on a slow server. Raises
        ServerError; where versions differ, before anything else is looked at."""
        hello = self._ask(("worker", "--remote"), environment, _HELLO_S)
        self.compare(hello)
        return {**hello, **self._ask(("doctor", "--json"), environment, _DOCTOR_S)}

    def compare(self, hello: Mapping[str, Any]) -> None:
        """Raises ServerError where an engine that introduces itself so is not of this version; the protocol counts first."""
        theirs, version = hello.get("protocol"), str(hello.get("version"))
        advice = f"Bring both to the same version; on the server with {self.install}."
        if (theirs, hello.get("remote")) != (PROTOCOL_VERSION, REMOTE_VERSION):
            there = f"The engine on {self.title} ({version:.40}) speaks version {theirs!r:.20} of the protocol"
            raise ServerError(f"{there}, this one ({__version__}) version {PROTOCOL_VERSION}.", advice)
        if version != __version__:
            raise ServerError(f"The engine on {self.title} is of version {version:.40}, this one of version {__version__}.", advice)

    def _ask(self, words: Sequence[str], environment: Mapping[str, str] | None, patience_s: float) -> dict[str, Any]:
        """The last JSON object that a command prints there."""
        command = self.command(*words)
        try:
            done = run([program(command[0]) or command[0], *command[1:]], patience_s, **child_options(environment))
        except OSError as error:
            raise no_ssh(error) from error
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{self.title} did not answer within {patience_s:.0f} s.", "Try again; is the server busy?") from error
        for line in reversed(done.stdout.decode("utf-8", errors="replace").splitlines()):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                return found
        raise self.explain(done.returncode, done.stderr.decode("utf-8", errors="replace"))

    @property
    def install(self) -> str:
        """What installs the engine there, to be run in a terminal here. A system's own Python refuses packages, so it gets a folder of its own."""
        login = shlex.join(self.login)
        if self.python != "python3":
            return f"`{login} {self.python} -m pip install --upgrade {_SOURCE}`"
        made = f"python3 -m venv {_VENV} && {_VENV}/bin/python -m pip install --upgrade {_SOURCE}"
        return f"`{login} '{made}'`"

    def explain(self, code: int | None, said: str) -> ServerError:
        """Why a connection failed or ended, from ssh's exit code and stderr."""
        sentence, advice = self._known(code, said) or self._unknown(code, said)
        return ServerError(sentence, advice)

    def _known(self, code: int | None, said: str) -> tuple[str, str] | None:
        title, terminal = self.title, shlex.join(self.login)
        if code == 255:
            known = {
                "IDENTIFICATION HAS CHANGED": (
                    f"{title} is not the server that it was: its host key has changed.",
                    "Ask who runs the server before you connect again.",
                ),
                "Host key verification failed": (
                    f"The host key of {title} is not known here.",
                    f"Run `{terminal}` once in a terminal, and compare what it shows with what the server's administrator says.",
                ),
                "Permission denied": (
                    f"{title} does not accept your key.",
                    f"See that `{terminal}` works in a terminal without a password; ssh-copy-id brings your key there.",
                ),
                "Could not resolve": (f"There is no server of the name {self.host}.", "Check the address, and the network."),
                "Connection refused": (f"{title} takes no ssh connections{self._on_port}.", "Check the address and its port; is the server on?"),
                "timed out": (f"{title} does not answer.", "Check the network (VPN?), the address, and that the server is on."),
                "No route to host": (f"{title} cannot be reached.", "Check the network (VPN?), and the address."),
                "Network is unreachable": (f"{title} cannot be reached.", "Check the network (VPN?), and the address."),
            }
            return next((words for sign, words in known.items() if sign in said), None)
        if code == 127:
            return (
                f"{title} has no Python of the name {self.python}.",
                "Name one of 3.11 or newer behind the address, ?python=PATH, or install it.",
            )
        if re.search(r"unknown option:? -P", said, re.IGNORECASE):
            return f"The Python {self.python} on {title} is too old.", "Name one of 3.11 or newer behind the address, ?python=PATH."
        if re.search(r"No module named '?sparseseg'?", said):
            return f"The engine is not installed for {self.python} on {title}.", f"Install it with {self.install}."
        if missing := re.search(r"No module named '?([\w.]+)'?", said):
            return f"The package {missing[1]} is missing for {self.python} on {title}.", f"Install the engine again with {self.install}."
        if "unrecognized arguments" in said or "invalid choice" in said:
            return f"The engine on {title} is of another version than this one ({__version__}).", f"Bring it to this version with {self.install}."
        return None

    @property
    def _on_port(self) -> str:
        return f" on port {self.port}" if self.port else ""

    def _unknown(self, code: int | None, said: str) -> tuple[str, str]:
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
        reason = f" ({last[:_SAID]})" if last else f" (exit code {code})"
        if code == 255:
            return f"The connection to {self.title} failed{reason}.", f"See that `{shlex.join(self.login)}` works in a terminal."
        return f"The engine on {self.title} did not start{reason}.", f"`sparseseg doctor --engine {self.address}` says what is missing."

    @property
    def address(self) -> str:
        """What `parse` takes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        user, port = (f"{self.user}@" if self.user else ""), (f":{self.port}" if self.port else "")
        return f"ssh://{user}{host}{port}" + ("" if self.python == "python3" else f"?python={self.python}")
