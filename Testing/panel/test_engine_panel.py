"""The engine's place in the panel: what is missing is said and offered where the user is, and a Python's path is looked at when it is typed."""

import pytest

from host import standin
from sparseseg.contract.errors import ServerError

ADVICE = 'Press "Install PyTorch..." in the module Sparse Segmentation.'


def hidden(widget):
    return standin.behind(widget).isHidden()


@pytest.fixture
def real_check(host):
    """As it is before the panel's fixture replaces it."""
    from SparseSegSlicerLib.session.EngineSetup import EngineSetup

    return EngineSetup.check


@pytest.fixture
def missing(host, panel):
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    panel.install.setup._become(EngineState.MISSING, "")
    return panel


def test_segment_without_pytorch_says_so_and_offers_the_installation_in_place(host, missing, begin, picture):
    import qt

    panel, installed = missing, []
    begin()
    panel.install.setup.install = lambda repair=False: installed.append(repair)
    host.click(panel.ui.segmentButton)
    host.spin(0.2)
    assert panel.ui.messageLabel.text == "PyTorch, which the engine needs, is not installed. " + ADVICE
    assert not panel.controller.running and not panel.controller.hasRun
    picture("7-install")
    top = standin.behind(panel.top)
    button = standin.behind(panel.ui.installHereButton)
    assert button.mapTo(top, button.rect().bottomLeft()).y() < 200, "beside the message, without scrolling"
    assert button.text() == "Install PyTorch..."
    host.answers["QMessageBox", "question"] = qt.QMessageBox.Ok
    host.click(panel.ui.installHereButton)
    assert installed == [False]


def test_nothing_is_offered_where_the_engine_is_ready(panel):
    assert hidden(panel.ui.engineNotice) and hidden(panel.ui.installHereButton)


def test_the_notice_stays_while_it_is_installed_and_goes_when_it_is_ready(host, missing, begin):
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    panel, setup = missing, missing.install.setup
    begin()
    setup._become(EngineState.INSTALLING, "")
    assert not hidden(panel.ui.engineNotice) and hidden(panel.ui.installHereButton)
    assert not panel.ui.pythonPath.enabled, "the installation is for the one that is chosen"
    host.click(panel.ui.segmentButton)
    assert panel.controller.message.sentence == "PyTorch is being installed."
    setup._become(EngineState.READY, "CPU, 2 threads")
    assert hidden(panel.ui.engineNotice)


def test_a_broken_one_is_repaired_and_the_question_says_what_goes(host, panel):
    import qt

    from SparseSegSlicerLib.session.EngineSetup import EngineState

    setup, installed = panel.install.setup, []
    setup.install = lambda repair=False: installed.append(repair)
    setup.installed = {"torch": "2.5.1", "torchvision": "0.20.1"}
    setup._become(EngineState.BROKEN, "PyTorch is installed, but does not load (file too short).")
    assert panel.ui.installHereButton.text == "Repair PyTorch..."
    host.answers["QMessageBox", "question"] = qt.QMessageBox.Ok
    host.click(panel.ui.installHereButton)
    assert installed == [True]
    text = host.dialogs[-1][2][2]
    assert "Removes first: torch 2.5.1, torchvision 0.20.1." in text and "Where:" in text and "GB" in text


def test_a_path_is_looked_at_once_when_it_has_been_typed(host, panel, monkeypatch):
    from SparseSegSlicerLib.panel import Install
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    setup, checked = panel.install.setup, []
    monkeypatch.setattr(type(setup), "check", lambda self: checked.append(self.python))
    path = "/opt/my env/bin/python"
    for end in range(len(path)):
        panel.ui.pythonPath.currentPath = path[: end + 1]
        host.spin()
    assert checked == [] and setup.python == ""
    host.spin(until=lambda: checked, timeout_s=10)
    host.spin(Install._AFTER_TYPING_MS / 1000 + 0.2)
    assert checked == [path] and setup.state is EngineState.UNKNOWN
    panel.ui.pythonPath.currentPath = "/opt/other"
    panel.close()
    host.spin(Install._AFTER_TYPING_MS / 1000 + 0.2)
    assert checked == [path], "a closed panel begins nothing"


def test_another_python_is_checked_in_a_thread_that_asks_qt_nothing(host, real_check, panel, monkeypatch):
    """The host refuses Qt in a thread, as Slicer crashes of it."""
    import subprocess

    from SparseSegSlicerLib.session.EngineSetup import EngineSetup, EngineState

    monkeypatch.setattr(EngineSetup, "check", real_check)
    panel.install.setup._run = lambda command, **_: subprocess.CompletedProcess(
        command, 0, '{"works": true, "torch": true, "choice": "CPU", "versions": {}}', ""
    )
    panel.ui.pythonPath.currentPath = "/opt/python"
    panel.install.onPythonChosen()
    host.spin(until=lambda: panel.install.setup.state is not EngineState.CHECKING, timeout_s=20)
    assert (panel.install.setup.state, panel.install.setup.detail) == (EngineState.READY, "CPU")


def test_what_a_killed_slicer_left_is_removed_when_the_panel_comes(host, request):
    import os
    import time
    from pathlib import Path

    import slicer

    left = Path(slicer.app.temporaryPath) / "sparseseg-left"
    left.mkdir()
    (left / "image.npy").write_bytes(b"a patient")
    (left / "host.lock").write_text("", encoding="ascii")
    os.utime(left / "host.lock", (time.time() - 3600,) * 2)
    request.getfixturevalue("panel")
    host.spin(until=lambda: not left.exists(), timeout_s=20)


@pytest.mark.parametrize(("name", "typed", "shown"), [("timeBudget", "1", "1"), ("correctionWeight", "2.", "2."), ("learningRate", "0.", "0.")])
def test_a_number_can_be_typed_while_events_come(host, panel, begin, name, typed, shown):
    """Each event shows the settings anew; the box that is being typed in is left alone until it is left."""
    from PySide6 import QtCore, QtTest

    begin()
    box = standin.behind(getattr(panel.ui, name))
    for section in ("trainSection", "advancedSection"):
        getattr(panel.ui, section).collapsed = False
    host.screenshot(panel.top, panel.folder / "typing.png")
    box.window().activateWindow()
    box.setFocus()
    host.spin(until=box.hasFocus, timeout_s=5)
    box.lineEdit().selectAll()
    for letter in typed:
        QtTest.QTest.keyClicks(box, letter)
        host.spin(0.1)
        panel.update()
    assert box.lineEdit().text().removesuffix(box.suffix()) == shown
    box.clearFocus()
    QtCore.QCoreApplication.processEvents()
    panel.update()
    assert box.value() == type(box.value())(getattr(panel.controller.parameters.settings(), SETTINGS[name]))


SETTINGS = {"timeBudget": "time_budget_s", "correctionWeight": "correction_weight", "learningRate": "learning_rate"}


def test_what_the_worker_misses_is_looked_for_by_the_check(panel):
    assert panel.controller.engineLacks == panel.install.setup.check


def test_the_self_test_ends_in_words_where_pytorch_is_missing(host, missing):
    from SparseSegSlicerLib.panel.SelfTest import runTutorial

    assert runTutorial(missing) == "Training, preview, Apply and undo were skipped: PyTorch is not installed."


@pytest.mark.slow
def test_a_worker_that_misses_pytorch_all_the_same_says_it_in_a_sentence(host, panel, begin, tmp_path, monkeypatch):
    """Somebody has removed it since the check."""
    import os

    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    checked = []
    panel.controller.engineLacks = lambda: checked.append(1)
    begin()
    host.click(panel.ui.segmentButton)
    host.spin(until=lambda: panel.controller.message.level == "error", timeout_s=60)
    assert checked == [1], "the check offers the installation"
    assert panel.controller.message.sentence == "PyTorch, which the engine needs, is not installed."
    assert "Traceback" not in "\n".join(panel.controller.log)


# ---------------------------------------------------------------- a server


SERVER = "radiologist@gpu.hospital.example"
COMMAND = f"ssh {SERVER} 'python3 -m pip install --upgrade git+https://github.com/SparseSegSlicer/SlicerSparseSeg.git'"


@pytest.fixture
def asked(real_check, panel, monkeypatch):
    """The servers that were asked, and what they answer."""
    from SparseSegSlicerLib.session.EngineSetup import EngineSetup

    monkeypatch.setattr(EngineSetup, "check", real_check)

    class Asked(list):
        answer = "NVIDIA A100 with bfloat16."

        def __call__(self, address):
            self.append(address)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    asked = Asked()
    monkeypatch.setattr(panel.install.setup, "_askServer", asked)
    return asked


def type_address(panel, text):
    from PySide6 import QtTest

    line = standin.behind(panel.ui.serverAddress)
    line.selectAll()
    QtTest.QTest.keyClicks(line, text)


def choose_server(panel, address=SERVER):
    panel.ui.engineSection.collapsed = False
    panel.ui.engineBox.currentIndex = 1
    type_address(panel, address)


def checked(host, panel):
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    host.click(panel.ui.checkButton)
    host.spin(until=lambda: panel.install.setup.state is not EngineState.CHECKING, timeout_s=20)
    return panel.install.setup.state


def test_a_server_is_chosen_by_its_address_and_asked_when_it_is_checked(host, asked, panel, picture):
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    ui = panel.ui
    choose_server(panel)
    assert panel.install.setup.launch().server == f"ssh://{SERVER}" and asked == [], "nothing connects while it is typed"
    assert ui.engineLabel.text == f"The engine ({SERVER}) was not checked yet."
    assert checked(host, panel) is EngineState.READY and asked == [f"ssh://{SERVER}"]
    assert ui.engineLabel.text == f"The engine ({SERVER}) is ready. NVIDIA A100 with bfloat16."
    assert all(hidden(widget) for widget in (ui.installButton, ui.repairButton, ui.pythonPath, ui.serverCommand, ui.engineNotice))
    picture("8-server")


def test_what_a_server_lacks_is_told_with_the_command_to_copy(host, asked, panel, picture):
    import qt

    from SparseSegSlicerLib.session.EngineSetup import EngineState

    ui, asked.answer = panel.ui, ServerError(f"The engine is not installed for python3 on {SERVER}.", f"Install it with `{COMMAND}`.")
    choose_server(panel)
    assert checked(host, panel) is EngineState.BROKEN
    assert ui.engineLabel.text == f"The engine is not installed for python3 on {SERVER}. Install it with the command below."
    assert hidden(ui.engineNotice) and hidden(ui.installHereButton), "nothing is installed on a server from here"
    assert ui.serverCommand.text == COMMAND
    host.click(ui.copyCommandButton)
    assert qt.QApplication.clipboard().text() == COMMAND
    assert standin.behind(panel.top).minimumSizeHint().width() <= 400
    picture("9-server-lacks")
    type_address(panel, "other@host")
    assert hidden(ui.serverCommand), "that was of another server"


def test_what_a_run_tells_of_its_server_is_shown_where_the_command_can_be_copied(host, asked, panel):
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    ui, error = panel.ui, ServerError("gpu does not accept your key.", "See that `ssh gpu` works in a terminal.")
    panel.controller.serverFailed(f"ssh://{SERVER}", error)
    assert panel.install.setup.state is not EngineState.BROKEN, "that is not the engine of this computer"
    choose_server(panel)
    panel.controller.serverFailed("ssh://other", error)
    assert hidden(ui.serverCommand)
    panel.controller.serverFailed(f"ssh://{SERVER}", error)
    assert ui.serverCommand.text == "ssh gpu" and "See that the command below works" in ui.engineLabel.text
    assert asked == []


def test_enter_checks_the_address(host, asked, panel):
    from PySide6 import QtCore, QtTest

    choose_server(panel)
    QtTest.QTest.keyClick(standin.behind(panel.ui.serverAddress), QtCore.Qt.Key_Return)
    host.spin(until=lambda: asked == [f"ssh://{SERVER}"], timeout_s=20)


def test_segment_without_an_address_asks_for_it(host, asked, panel, begin):
    begin()
    panel.ui.engineBox.currentIndex = 1
    assert not panel.ui.checkButton.enabled
    assert panel.ui.engineLabel.text == "Write the server's address, then press Check."
    host.click(panel.ui.segmentButton)
    assert not panel.controller.running
    assert panel.controller.message.text() == 'No server is named yet. Write its address in the section "Engine", as user@host.'
    type_address(panel, SERVER)
    assert "No server" not in panel.controller.message.text()


def test_the_choice_is_remembered_on_this_machine_and_connects_to_nothing_by_itself(host, asked, panel):
    from SparseSegSlicerLib.panel.Install import makeSetup
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    choose_server(panel, f" {SERVER}:22 ")
    assert makeSetup().server == f"{SERVER}:22"
    panel.exit()
    panel.enter()
    assert asked == [] and panel.install.setup.state is EngineState.UNKNOWN
    panel.install.setup._run = lambda *_, **__: pytest.fail("this computer is checked at another time")
    panel.ui.engineBox.currentIndex = 0
    assert makeSetup().server is None
    panel.ui.engineBox.currentIndex = 1
    assert makeSetup().server == f"{SERVER}:22", "the address is kept for the next time"


def test_a_check_under_way_says_nothing_of_what_was_chosen_since_and_holds_it_up_by_nothing(host, asked, panel, monkeypatch):
    import threading

    from SparseSegSlicerLib.session.EngineSetup import EngineState

    answers = threading.Event()

    def answer(server):
        if server == f"ssh://{SERVER}":
            answers.wait(20)
        return f"of {server}"

    monkeypatch.setattr(panel.install.setup, "_askServer", answer)
    try:
        choose_server(panel)
        host.click(panel.ui.checkButton)
        type_address(panel, "other@host")
        assert checked(host, panel) is EngineState.READY
        assert panel.install.setup.detail == "of ssh://other@host"
    finally:
        answers.set()
    host.spin(0.3)
    assert panel.install.setup.detail == "of ssh://other@host"


def test_the_panel_says_on_which_server_the_engine_works(host, panel):
    panel.controller.server, panel.controller.report.why = SERVER, "NVIDIA A100 with bfloat16"
    panel.update()
    assert panel.ui.deviceLabel.text == f"On {SERVER}: NVIDIA A100 with bfloat16."
