"""What a real engine promises of a job: whose it is, and that an update killed at any moment is adopted or not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sparseseg
from phantoms import make_job, two_organs
from sparseseg.contract.job import Job
from sparseseg.contract.lock import Owner
from sparseseg.contract.protocol import Error, Open, Ready
from sparseseg.contract.settings import Settings

WRAPPED = """
import builtins, os, signal, sys
from pathlib import Path
left = int(sys.argv[1])
def deadly(real, counts=lambda *_, **__: True):
    def call(*arguments, **options):
        global left
        if counts(*arguments, **options):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return real(*arguments, **options)
    return call
for name in ("fsync", "replace", "unlink", "remove", "rmdir"):
    setattr(os, name, deadly(getattr(os, name)))
Path.unlink = deadly(Path.unlink)
builtins.open = deadly(builtins.open, lambda _, mode="r", *__, **___: set(mode) & set("wax+"))
sys.argv = ["sparseseg", "worker"]
from sparseseg.cli import main
main()
"""


def test_an_engine_of_another_host_is_refused_and_the_owners_is_not(talk, job):
    with Owner(job):
        talk.client.send(Open("theirs", str(job), "cpu"))
        error = talk.until(Error, id="theirs")
        assert (error.code, f"process {os.getpid()}" in error.sentence) == ("job", True)
        talk.client.send(Open("ours", str(job), "cpu", owner=os.getpid()))
        assert talk.until(Ready, id="ours").revision == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX knows them")
def test_an_update_is_adopted_or_not_wherever_its_engine_is_killed(tmp_path):
    phantom, box = two_organs((16, 24, 24)), [[7, 8], [0, 24], [0, 24]]
    after = phantom.annotation.copy()
    after[7] = phantom.truth[7] + 1
    told, seen = ("annotation-0002.npy", 2, [], box), set()
    for n in range(100):
        folder = make_job(tmp_path / f"{n}", phantom, replace(Settings(), refine=False))
        np.save(folder / told[0], after[7:8])
        code, answers = _update(folder, told, n)
        with Job.open(folder) as job:
            revision = job.record.revision
            np.testing.assert_array_equal(job.annotation(), {1: phantom.annotation, 2: after}[revision])
            job.adopt(job.update(*told))  # sent again, by a host that may have heard nothing
            np.testing.assert_array_equal(job.annotation(), after)
        assert not answers or revision == 2, "what is answered is adopted"
        assert not [path.name for path in folder.iterdir() if path.name.startswith((".", "preview", told[0]))]
        seen.add(revision)
        if code == 0:
            assert n > 5 and seen == {1, 2}
            return
        assert code == -signal.SIGKILL
    pytest.fail("it does not end")


def _update(folder, told, n):
    """Of a worker that is killed at its n-th change of the disk: its exit code, and whether it answered an update with a preview."""
    name, revision, _, box = told
    path = str(Path(sparseseg.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", WRAPPED, str(n)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    commands = [
        {"command": "open", "id": "o", "job": str(folder), "device": "cpu", "protocol": 4},
        {"command": "update", "id": "u", "annotation": name, "revision": revision, "box": box},
        {"command": "close", "id": "c"},
    ]
    answers = []
    with process:
        for command in commands:
            try:
                process.stdin.write(json.dumps(command) + "\n")
                process.stdin.flush()
            except OSError:  # killed
                break
            for line in process.stdout:
                event = json.loads(line)
                if event["id"] == command["id"] and event["event"] in ("ready", "preview", "error"):
                    answers += [event] * (event["event"] == "preview")
                    break
        with contextlib.suppress(OSError):
            process.stdin.close()
    return process.returncode, answers
