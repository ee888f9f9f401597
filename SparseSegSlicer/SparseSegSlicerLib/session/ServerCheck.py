"""Asking a server, by the system's ssh, whether the engine works there. No qt."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence

from sparseseg import __version__
from sparseseg.contract import child
from sparseseg.contract.server import Server, ServerError

from ..i18n import tr as _


def ask(
    address: str,
    run: Callable[..., subprocess.CompletedProcess],
    environment: Mapping[str, str] | None,
    timeout: float,
    remember: Callable[[Sequence[str], subprocess.CompletedProcess], None],
) -> str:
    """What works there, in a sentence; for a thread. run: as subprocess.run; environment: of ssh, which fails with Slicer's libraries; remember: is
    given what was said. Raises ServerError, with the command that mends it in the advice."""
    server = Server.parse(address)
    command = server.command("doctor", "--json")
    options = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "check": False}
    try:
        done = run([child.program("ssh") or "ssh", *command[1:]], timeout=timeout, env=environment, **options, **child.no_window())
    except OSError as error:
        sentence = _("The program ssh could not be started ({reason}).").format(reason=error.strerror or error)
        raise ServerError(sentence, _("Install OpenSSH's client: it is part of Windows' optional features, and of each Linux.")) from error
    except subprocess.TimeoutExpired as error:
        raise ServerError(_("{server} did not answer.").format(server=server.title), _("Check the network, and the address.")) from error
    remember(command, done)
    return _verdict(server, done)


def _verdict(server: Server, done: subprocess.CompletedProcess) -> str:
    try:
        found = json.loads(done.stdout[done.stdout.index("{") :])  # a login may print a greeting first
        version, works, choice = found["versions"]["sparseseg"], found["works"], found["choice"]
    except (ValueError, KeyError, TypeError):
        raise server.explain(done.returncode, done.stderr) from None
    if version != __version__:
        sentence = _("The engine on {server} is of version {its}, this one of version {ours}.")
        raise ServerError(
            sentence.format(server=server.title, its=version, ours=__version__),
            _("Bring it to this version: {command}.").format(command=server.install),
        )
    if not works:
        raise ServerError(_("The engine on {server} does not work.").format(server=server.title), choice)
    return choice
