"""What can be wrong with a server, each in one sentence that says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import PACKAGES, Talk

import sparseseg
from sparseseg import cli
from sparseseg.contract.client import connect
from sparseseg.contract.errors import ServerError
from sparseseg.contract.protocol import Error, Ready
from sparseseg.contract.server import Server


def refusal(server):
    """What a client says in the end, and the doctor says before."""
    talk = Talk(server)
    error = talk.until(Error)
    assert error.fatal and error.code == "connection"
    talk.client.close().join()
    with pytest.raises(ServerError) as raised:
        server.examine()
    assert raised.value.sentence == error.sentence
    return error


def test_a_wrong_key(sshd):
    sshd.configure(key="other_key")
    assert "does not accept your key" in refusal(sshd.server()).sentence


def test_a_host_key_that_is_not_known(sshd):
    sshd.configure(hosts="nothing")
    assert "host key of" in refusal(sshd.server()).sentence


def test_a_host_key_that_has_changed(sshd):
    (sshd.folder / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {(sshd.folder / 'user_key.pub').read_text()}")
    assert "has changed" in refusal(sshd.server()).sentence


def test_nobody_at_the_port(sshd):
    sshd.stop()
    assert f"takes no ssh connections on port {sshd.port}" in refusal(sshd.server()).sentence


def test_a_name_that_is_nobodys(sshd):
    error = refusal(Server.parse("ssh://no-such-server.invalid"))
    assert "There is no server of the name no-such-server.invalid" in error.sentence


def test_no_python(sshd):
    assert "has no Python of the name" in refusal(sshd.server(python="/nowhere/python3")).sentence


def test_no_engine(start_sshd, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    error = refusal(start_sshd({}).server(python=tmp_path / "bare" / "bin" / "python"))
    assert "The engine is not installed" in error.sentence
    assert "-m pip install" in error.advice


def other(tmp_path, text):
    """An environment of a server whose Python runs this text at its start."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text(f"import sys\nsys.path.insert(0, {PACKAGES!r})\n{text}\n")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "other"), PACKAGES])}


def test_another_version(start_sshd, tmp_path):
    server = start_sshd(other(tmp_path, "import sparseseg\nsparseseg.__version__ = '0.0.9'")).server()
    error = refusal(server)
    assert "is of version 0.0.9, this one of version " + sparseseg.__version__ in error.sentence
    assert "pip install" in error.advice


def test_another_protocol_counts_first(start_sshd, tmp_path):
    text = "import sparseseg\nsparseseg.__version__ = '9'\nimport sparseseg.contract.protocol as protocol\nprotocol.PROTOCOL_VERSION = 99"
    assert "speaks version 99 of the protocol" in refusal(start_sshd(other(tmp_path, text)).server()).sentence


def test_an_engine_from_before_there_was_ssh(start_sshd, tmp_path):
    text = "if 'sparseseg' in sys.orig_argv: print('error: unrecognized arguments: --remote', file=sys.stderr, flush=True); import os; os._exit(2)"
    error = refusal(start_sshd(other(tmp_path, text)).server())
    assert "is of another version" in error.sentence


def test_a_shell_that_talks_is_listened_past(start_sshd, tmp_path):
    """Not a fault: many servers greet also those who run a program."""
    text = "if 'sparseseg' in sys.orig_argv and '--remote' in sys.orig_argv: print('Welcome!\\n{\"weather\": 1}', flush=True)"
    talk = Talk(start_sshd(other(tmp_path, text)).server())
    talk.until(Ready, id="")
    talk.client.close().join()


def test_ssh_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="The program ssh could not be started"):
        connect("ssh://anna@server")
    with pytest.raises(ServerError, match="The program ssh could not be started"):
        Server.parse("ssh://anna@server").examine()


def test_the_doctor_looks_at_the_server(sshd, capsys):
    assert cli.main(["doctor", "--engine", sshd.address(), "--json"]) == 0
    out = capsys.readouterr().out
    assert '"protocol"' in out and '"devices"' in out


def test_the_command_line_says_it_in_a_sentence(sshd, capfd, tmp_path):
    sshd.configure(key="other_key")
    assert cli.main(["doctor", "--engine", sshd.address()]) == 4
    said = capfd.readouterr().err
    assert "does not accept your key" in said and "Traceback" not in said
    assert not list(Path(sshd.temporary).iterdir())
