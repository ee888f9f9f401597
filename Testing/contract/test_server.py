"""Addresses of engines on other computers, and the command lines that they become."""

import os
import shlex
import subprocess

import pytest

from sparseseg.contract.errors import ServerError
from sparseseg.contract.server import Server


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("ssh://anna@gpu.hospital.org", Server("gpu.hospital.org", "anna")),
        ("ssh://gpu", Server("gpu")),
        ("ssh://GPU-1/", Server("GPU-1")),  # a name of ssh's config, as it is written there
        ("ssh://anna@10.0.0.7:2222", Server("10.0.0.7", "anna", 2222)),
        ("ssh://anna@[fe80::1%25eth0]:22", Server("fe80::1%25eth0", "anna", 22)),
        ("ssh://HOSPITAL%5Canna@gpu", Server("gpu", "HOSPITAL\\anna")),
        ("ssh://anna@gpu?python=/opt/engine/bin/python", Server("gpu", "anna", 0, "/opt/engine/bin/python")),
        ("ssh://gpu?python=~/venv/bin/python3.12", Server("gpu", python="venv/bin/python3.12")),  # ssh starts in the home folder
    ],
)
def test_addresses(address, server):
    assert Server.parse(address) == server
    assert Server.parse(server.address) == server


@pytest.mark.parametrize(
    "address",
    [
        "",
        "gpu",
        "http://gpu",
        "ssh://",
        "ssh://-oProxyCommand=touch%20x",
        "ssh://-oProxyCommand@gpu",
        "ssh://anna@-oProxyCommand=x",
        "ssh://anna:secret@gpu",
        "ssh://gpu:99999",
        "ssh://gpu/folder",
        "ssh://gpu?python=",
        "ssh://gpu?python=-c",
        "ssh://gpu?python=a;reboot",
        "ssh://gpu?python=$(reboot)",
        "ssh://gpu?python=a&python=b",
        "ssh://gpu?other=1",
        "ssh://gpu x",
        "ssh://gpu\nx",
        "ssh://gpü",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ServerError):
        Server.parse(address)


def test_the_command_line_has_our_words_only():
    command = Server("gpu", "anna", 2222, "/opt/my engine/bin/python").command("worker", "--remote")
    assert command[0] == "ssh" and "BatchMode=yes" in command
    assert command[-3:-1] == ["--", "gpu"]
    words = ["env", "PYTHONSAFEPATH=1", "PYTHONUTF8=1", "/opt/my engine/bin/python", "-P", "-m", "sparseseg", "worker", "--remote"]
    assert shlex.split(command[-1]) == words


@pytest.mark.skipif(os.name != "posix", reason="the servers' shell is not here")
def test_the_python_of_the_folder_that_installing_makes_is_taken_where_it_is(tmp_path):
    """So nothing has to be set after the command that a refusal names."""
    server = Server("gpu")
    assert "sparseseg-engine/bin/python -m pip install" in server.install
    words = shlex.split(server.command("doctor")[-1])
    found = words.index("sh")
    for folder, name in ((tmp_path / "sparseseg-engine" / "bin", "python"), (tmp_path, "python3")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@"\n', encoding="ascii")
        (folder / name).chmod(0o755)

    def started():
        environment = {"PATH": f"{tmp_path}{os.pathsep}{os.defpath}"}
        return subprocess.run(words[found:], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert started() == ["python", "-P", "-m", "sparseseg", "doctor"]
    (tmp_path / "sparseseg-engine" / "bin" / "python").unlink()
    assert started() == ["python3", "-P", "-m", "sparseseg", "doctor"]
