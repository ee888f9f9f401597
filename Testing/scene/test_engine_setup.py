"""Finding out whether the engine works, and installing what it lacks, with scripted child processes; and once with a real one."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from sparseseg.contract.errors import ServerError
from sparseseg.contract.server import Server


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


def doctor(works, choice, loads, /, **versions):
    """What `sparseseg doctor --json` answers."""
    return 0 if works else 3, json.dumps({"works": works, "torch": loads, "choice": choice, "versions": versions}), ""


def listed(**versions):
    """What `pip list --format json` answers."""
    return 0, json.dumps([{"name": name, "version": version} for name, version in versions.items()]), ""


READY = doctor(True, "CPU, 2 threads", True, torch="2.7.1")
MISSING = doctor(False, "PyTorch, which the engine needs, is not installed.", False)
BROKEN = doctor(False, "PyTorch is installed, but does not load (file too short).", False, torch="2.7.1")
DONE = (0, "Successfully installed", "")
NUMPY = listed(numpy="2.0.2", scipy="1.14.0")


@pytest.fixture
def setup_with(scene_host):
    from SparseSegSlicerLib.session.EngineSetup import EngineSetup

    made = []

    def make(*answers, python="", environment=None, run=None, folder=""):
        child = run or Child(*answers)
        made.append(EngineSetup(python, lambda: environment or {}, str(folder), child, str(folder)))
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


CRASHED = (1, "", "Traceback ...\nModuleNotFoundError: No module named 'numpy'\n")
VERDICTS = [(READY, "READY", "CPU, 2 threads"), (MISSING, "MISSING", ""), (BROKEN, "BROKEN", "too short"), (CRASHED, "BROKEN", "'numpy'")]


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
    setup = setup_with(listed(numpy="2.0.2"), DONE, DONE, NUMPY, DONE, READY)
    setup.install()
    assert wait(setup) == "READY"
    _, pip, torch, _, numba, check = setup.child.calls
    assert torch[4:] == ["torch>=2.6"]
    assert [call[2:4] for call in (pip, torch, check)] == [["pip", "install"], ["light_the_torch", "install"], ["sparseseg", "doctor"]]
    assert numba[1:4] == ["-m", "pip", "install"]
    assert numba[-1] == "numpy==2.0.2"  # the one that is there


@pytest.mark.parametrize("answers", [[(1, "", "No module named 'numpy'")], [NUMPY, (1, "", "ERROR: No matching distribution found for numba")]])
def test_without_a_fitting_numba_the_engine_is_ready_all_the_same(setup_with, answers):
    setup = setup_with(NUMPY, DONE, DONE, *answers, READY)
    setup.install()
    assert wait(setup) == "READY"


def test_a_failed_installation_says_why_and_is_not_checked(setup_with):
    setup = setup_with(NUMPY, DONE, (1, "", "ERROR: No space left on device\n"))
    setup.install()
    assert wait(setup) == "BROKEN"
    assert setup.detail == "PyTorch could not be installed: ERROR: No space left on device"
    assert len(setup.child.calls) == 3


def test_repair_removes_the_half_installed_one_first_and_takes_along_what_must_fit_it(setup_with):
    """torchvision and torchaudio work with one version of torch each."""
    setup = setup_with(listed(torch="2.5.1", torchvision="0.20.1", torchaudio="2.5.1"), DONE, DONE, DONE, NUMPY, DONE, READY)
    setup.install(repair=True)
    assert wait(setup) == "READY"
    _, uninstall, _, install, *_ = setup.child.calls
    assert uninstall[1:] == ["-m", "pip", "uninstall", "-y", "torch", "torchvision", "torchaudio"]
    assert install[1:] == ["-m", "light_the_torch", "install", "torch>=2.6", "torchvision", "torchaudio"]


def test_the_plan_names_what_is_removed_and_what_comes(setup_with):
    setup = setup_with(doctor(False, "does not load", False, torch="2.5.1", torchvision="0.20.1", numba="0.61"))
    setup.check()
    assert wait(setup) == "BROKEN"
    plan = setup.plan(repair=True)
    assert "Installs: torch, torchvision, the build" in plan and "Removes first: torch 2.5.1, torchvision 0.20.1." in plan
    assert "numba" not in plan and "Keeps as they are: numpy" in plan
    setup.setPython("/another/python")
    assert "torchvision" not in setup.plan() and "Also numba" in setup.plan()


def test_a_run_that_would_be_in_vain_is_refused_before_it_begins(setup_with):
    setup = setup_with(MISSING)
    assert setup.refusal is None
    setup.check()
    wait(setup)
    assert setup.refusal.text() == 'PyTorch, which the engine needs, is not installed. Press "Install PyTorch..." in the module Sparse Segmentation.'


def test_the_application_is_asked_for_its_environment_by_the_thread_that_chooses_and_by_no_other(setup_with):
    from SparseSegSlicerLib.session.EngineSetup import EngineSetup

    asked = []
    setup = EngineSetup("", lambda: asked.append(threading.current_thread()) or {}, "", Child(READY))
    setup.setPython("/opt/python")
    setup.check()
    assert wait(setup) == "READY"
    assert asked == [threading.current_thread()]
    setup.close()


def test_the_verdict_on_a_python_that_was_given_up_is_not_taken_for_the_next(setup_with):
    go = threading.Event()

    def run(command, env, **_):
        if command[0] == "/slow/python":
            go.wait(30)
            return subprocess.CompletedProcess(command, *READY)
        return subprocess.CompletedProcess(command, *MISSING)

    setup = setup_with(python="/slow/python", run=run)
    setup.check()
    setup.setPython("/another/python")
    go.set()
    setup.check()
    assert wait(setup) == "MISSING"


def test_a_program_that_is_not_there_is_named(setup_with):
    setup = setup_with(python="/nowhere/python", run=subprocess.run)
    setup.check()
    assert wait(setup) == "BROKEN"
    assert setup.detail == "/nowhere/python could not be started (No such file or directory)."


# ---------------------------------------------------------------- what DICOM needs


def test_packages_for_dicom_go_into_their_own_folder_and_replace_nothing(setup_with, tmp_path):
    """pip is asked what is missing or too old; this, and no more, lies in the folder then."""

    def run(command, env, **_):
        calls.append(command[1:])
        if "--dry-run" in command:
            metadata = [{"metadata": {"name": "pydicom", "version": "3.0.1"}}, {"metadata": {"name": "pyjpegls", "version": "1.5.1"}}]
            report = command[command.index("--report") + 1]
            with open(report, "w", encoding="utf-8") as file:
                json.dump({"install": metadata}, file)
        return subprocess.CompletedProcess(command, *DONE)

    calls = []
    setup = setup_with(run=run, folder=tmp_path)
    assert setup.installPackages(["pydicom>=3", "highdicom>=0.25"]).returncode == 0
    asked, installed = calls
    assert asked[-2:] == ["pydicom>=3", "highdicom>=0.25"] and "--target" not in asked
    assert "--no-deps" in installed
    assert installed[installed.index("--target") + 1 :] == [str(setup.packages), "pydicom==3.0.1", "pyjpegls==1.5.1"]
    assert setup.packages.parent == tmp_path
    mine = setup.packages
    setup.setPython("/another/python")
    assert setup.packages != mine


def test_only_the_engines_commands_find_them_and_before_all_others(setup_with, tmp_path):
    shadow = tmp_path / "slicer"
    shadow.mkdir()
    (shadow / "pydicom.py").write_text("__version__ = '2'", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(shadow)}
    setup = setup_with(run=subprocess.run, folder=tmp_path)
    setup._environment = environment  # as of Slicer's own Python, whose packages come first
    setup.packages.mkdir()
    (setup.packages / "pydicom.py").write_text("raise SystemExit('ours, ' + str(__import__('sys').argv[1:]))", encoding="utf-8")
    (setup.packages / "highdicom.py").write_text("", encoding="utf-8")
    (tmp_path / "a.dcm").write_bytes(bytes(200))
    done = setup.engine("import", str(tmp_path / "a.dcm"), str(tmp_path), "-o", str(tmp_path / "b.nrrd"), timeout=120)
    assert done.stderr.startswith("ours, ['import'"), done.stderr
    found = setup.call("-c", "import pydicom; print(pydicom.__version__)", timeout=60)
    assert found.stdout.strip() == "2"


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


# ---------------------------------------------------------------- a server

SERVER = "anna@gpu.hospital.org"
OUTSIDE = {"PATH": "/bin", "LD_LIBRARY_PATH": "/slicer/lib", "SSH_AUTH_SOCK": "/tmp/agent"}


@pytest.fixture
def server_with(setup_with, monkeypatch):
    """A setup whose server is `typed`, with what asking it gives."""

    def make(answer=None, typed=SERVER):
        setup = setup_with(environment=OUTSIDE)
        setup.asked = []

        def examine(self, environment):
            setup.asked.append((self.address, environment))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr(Server, "examine", examine)
        setup.setServer(typed)
        return setup

    return make


@pytest.mark.parametrize(("typed", "address"), [(SERVER, f"ssh://{SERVER}"), (f"ssh://{SERVER}:2222", f"ssh://{SERVER}:2222")])
def test_a_server_is_asked_by_an_ssh_without_slicers_libraries(server_with, typed, address):
    setup = server_with({"works": True, "choice": "NVIDIA A100 with bfloat16."}, typed)
    setup.checkOnce()
    assert setup.asked == [], "only when it is checked"
    setup.check()
    assert wait(setup) == "READY"
    assert (setup.where, setup.detail, setup.remedy) == (typed, "NVIDIA A100 with bfloat16.", "")
    assert setup.asked == [(address, {"PATH": "/bin", "SSH_AUTH_SOCK": "/tmp/agent"})]
    assert (setup.launch().server, setup.launch().environment) == setup.asked[0]
    assert setup.child.calls == []


def explained(code, said):
    return Server.parse(f"ssh://{SERVER}").explain(code, said)


@pytest.mark.parametrize(
    ("answer", "said", "remedy"),
    [
        (explained(255, "Permission denied (publickey)."), "does not accept your key", f"ssh {SERVER}"),
        (explained(255, "Host key verification failed."), "is not known here", f"ssh {SERVER}"),
        (explained(1, "/usr/bin/python3: No module named sparseseg"), "is not installed", "pip install"),
        ({"works": False, "choice": "PyTorch, which the engine needs, is not installed."}, "PyTorch, which the engine needs", "pip install"),
        (ServerError("The program ssh could not be started.", "Install OpenSSH's client."), "The program ssh could not be started.", ""),
        (OSError("unexpected"), "unexpected.", ""),
    ],
)
def test_what_is_wrong_with_a_server_is_a_sentence_and_a_command(server_with, answer, said, remedy):
    setup = server_with(answer)
    setup.check()
    assert wait(setup) == "BROKEN"
    assert said in setup.detail and remedy in setup.remedy and bool(remedy) == bool(setup.remedy)
    assert "`" not in setup.detail and ("the command below" in setup.detail) == bool(remedy)
    assert setup.refusal is None, "the next run asks anew"
    setup.setServer("other")
    assert setup.remedy == ""


def test_an_address_that_is_none_is_not_asked(server_with):
    setup = server_with(typed="-oProxyCommand=x")
    setup.check()
    assert wait(setup) == "BROKEN"
    assert setup.asked == [] and "is no address of an engine." in setup.detail


def test_a_server_that_is_not_named_is_not_asked_but_asked_for(server_with):
    setup = server_with(typed="")
    setup.check()
    assert setup.state.name == "UNKNOWN" and setup.asked == []
    assert setup.refusal.sentence == "No server is named yet."
    setup.setServer(None)
    assert setup.refusal is None and setup.launch().server == "" and setup.launch().environment is None


@pytest.mark.slow
def test_the_real_self_test_passes_here(setup_with):
    setup = setup_with(python=sys.executable, run=subprocess.run, environment=dict(__import__("os").environ))
    setup.check()
    assert wait(setup) == "READY", setup.log
