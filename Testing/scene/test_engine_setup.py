"""Finding out whether the engine works, and installing what it lacks, with scripted child processes; and once with a real one."""

import json
import subprocess
import sys
import time

import pytest


class Child:
    """Stands for subprocess.run: answers each call from a list, and remembers the command lines."""

    def __init__(self, *answers):
        self.answers, self.calls, self.environments = list(answers), [], []

    def __call__(self, command, env, **_):
        self.calls.append(command)
        self.environments.append(env)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return subprocess.CompletedProcess(command, *answer)


READY = (0, json.dumps({"works": True, "choice": "CPU, 2 threads"}), "")
MISSING = (1, "", "Traceback ...\nModuleNotFoundError: No module named 'torch'\n")
BROKEN = (1, "", "ImportError: libtorch.so: file too short\n")
DONE = (0, "Successfully installed", "")
NUMPY = (0, "2.0.2\n", "")


@pytest.fixture
def setup_with(scene_host):
    from SparseSegSlicerLib.session.EngineSetup import EngineSetup

    made = []

    def make(*answers, python="", environment=None, run=None):
        child = run or Child(*answers)
        made.append(EngineSetup(python, lambda: environment or {}, "", child))
        made[-1].child = child
        return made[-1]

    yield make
    for setup in made:
        setup.close()


def wait(setup, patience_s=120):
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    end = time.monotonic() + patience_s
    while setup.state in (EngineState.CHECKING, EngineState.INSTALLING):
        assert time.monotonic() < end
        setup.poll()
        time.sleep(0.01)
    return setup.state.name


VERDICTS = [(READY, "READY", "CPU, 2 threads"), (MISSING, "MISSING", ""), (BROKEN, "BROKEN", "too short")]


@pytest.mark.parametrize("answer, state, detail", VERDICTS)
def test_the_check_tells_ready_missing_and_broken_apart(setup_with, answer, state, detail):
    setup = setup_with(answer)
    setup.check()
    assert wait(setup) == state
    assert detail in setup.detail
    assert setup.child.calls[0][1:] == ["-m", "sparseseg", "doctor", "--json"]


@pytest.mark.parametrize("error", [FileNotFoundError("no such file"), subprocess.TimeoutExpired("doctor", 180)])
def test_a_check_that_cannot_run_is_broken_not_an_exception(setup_with, error):
    setup = setup_with(error)
    setup.check()
    assert wait(setup) == "BROKEN"
    assert setup.detail


def test_installing_runs_the_tool_in_a_child_process_and_then_checks(setup_with):
    setup = setup_with(DONE, DONE, NUMPY, DONE, READY)
    setup.install()
    assert wait(setup) == "READY"
    pip, torch, _, numba, doctor = setup.child.calls
    assert [call[2:4] for call in (pip, torch, doctor)] == [["pip", "install"], ["light_the_torch", "install"], ["sparseseg", "doctor"]]
    assert numba[1:4] == ["-m", "pip", "install"]
    assert numba[-1] == "numpy==2.0.2"  # the one that is there


@pytest.mark.parametrize("answers", [[(1, "", "No module named 'numpy'")], [NUMPY, (1, "", "ERROR: No matching distribution found for numba")]])
def test_without_a_fitting_numba_the_engine_is_ready_all_the_same(setup_with, answers):
    setup = setup_with(DONE, DONE, *answers, READY)
    setup.install()
    assert wait(setup) == "READY"


def test_a_failed_installation_says_why_and_is_not_checked(setup_with):
    setup = setup_with(DONE, (1, "", "ERROR: No space left on device\n"))
    setup.install()
    assert wait(setup) == "BROKEN"
    assert setup.detail == "PyTorch could not be installed: ERROR: No space left on device"
    assert len(setup.child.calls) == 2


def test_repair_removes_the_half_installed_one_first(setup_with):
    setup = setup_with(DONE, DONE, DONE, NUMPY, DONE, READY)
    setup.install(repair=True)
    assert wait(setup) == "READY"
    assert setup.child.calls[0][1:5] == ["-m", "pip", "uninstall", "-y"]


def test_another_python_gets_none_of_slicers_libraries(setup_with):
    before = {"PATH": "/bin", "PYTHONHOME": "/slicer", "LD_LIBRARY_PATH": "/slicer/lib", "PYTHONPATH": "/slicer/py", "SSL_CERT_FILE": "x"}
    setup = setup_with(READY, python="/opt/my env/bin/python", environment=before)
    assert setup.launch().environment == {"PATH": "/bin"}
    assert setup.launch().python == ("/opt/my env/bin/python",)
    setup.check()
    wait(setup)
    environment = setup.child.environments[0]
    assert not {"PYTHONHOME", "LD_LIBRARY_PATH", "SSL_CERT_FILE"} & set(environment)
    assert "/slicer/py" not in environment["PYTHONPATH"]


def test_slicers_own_python_keeps_its_environment(setup_with):
    assert setup_with().launch().environment is None


@pytest.mark.slow
def test_the_real_self_test_passes_here(setup_with):
    setup = setup_with(python=sys.executable, run=subprocess.run, environment=dict(__import__("os").environ))
    setup.check()
    assert wait(setup) == "READY", setup.log
