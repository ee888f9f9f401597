"""Where PyTorch is missing or broken: one sentence with advice from worker, command line and doctor, and no traceback."""

import json
import os
import subprocess
import sys

import pytest

from sparseseg import doctor
from sparseseg.contract.child import worker_environment

MISSING = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"
SAYS = {
    MISSING: "PyTorch, which the engine needs, is not installed.",
    "raise ImportError('libtorch.so: file too short')": "PyTorch is installed, but does not load (libtorch.so: file too short).",
    "raise OSError('[WinError 126] The specified module could not be found')": "PyTorch is installed, but does not load ([WinError 126] The",
}


@pytest.fixture
def without(tmp_path):
    """An environment in which this is torch."""

    def without(code):
        (tmp_path / "torch.py").write_text(code, encoding="utf-8")
        return worker_environment({**os.environ, "PYTHONPATH": str(tmp_path)})

    return without


def sparseseg(*arguments, env):
    command = [sys.executable, "-m", "sparseseg", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=120, check=False)


@pytest.mark.parametrize("code", list(SAYS)[:2])
def test_the_doctor_tells_what_else_is_there(without, code):
    done = sparseseg("doctor", "--json", env=without(code))
    found = json.loads(done.stdout)
    assert (found["works"], found["torch"], done.returncode) == (False, False, 3)
    assert found["choice"].startswith(SAYS[code])
    assert found["versions"]["numpy"] and "Traceback" not in done.stderr
    assert SAYS[code] in doctor.text(found)


@pytest.mark.parametrize("code", SAYS)
def test_predicting_is_refused_in_a_sentence(without, tmp_path, code):
    import numpy as np
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(np.arange(8000, dtype=np.int16).reshape(20, 20, 20)), str(tmp_path / "image.nrrd"))
    done = sparseseg("predict", tmp_path / "model.pt", tmp_path / "image.nrrd", "-o", tmp_path / "out.nrrd", env=without(code))
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(f"sparseseg: {SAYS[code]}")
    assert "Traceback" not in done.stderr


def test_the_worker_says_it_too_and_its_log_holds_no_traceback(without, tmp_path):
    import numpy as np

    from sparseseg.contract.classes import ClassTable
    from sparseseg.contract.client import WorkerClient
    from sparseseg.contract.geometry import Geometry
    from sparseseg.contract.job import Job, JobRecord
    from sparseseg.contract.protocol import Error, Open, Predict
    from sparseseg.contract.settings import Settings

    shape = (20, 20, 20)
    record = JobRecord(Geometry.from_ijk_to_ras(shape, np.eye(4)), ClassTable(()), Settings())
    Job.create(tmp_path / "job", np.arange(8000, dtype=np.int16).reshape(shape), None, record).close()
    client = WorkerClient(environment=without(MISSING))
    try:
        client.send(Open("open", str(tmp_path / "job")))
        client.send(Predict("predict", str(tmp_path / "model.pt")))
        while not isinstance(event := client.wait(60), Error):
            assert event is not None, client.log
        assert (event.code, event.sentence) == ("package", SAYS[MISSING])
        assert "Install PyTorch" in event.advice and "Traceback" not in client.log
    finally:
        client.kill()
