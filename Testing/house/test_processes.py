"""Each child process is started without a console window, which Windows would show for a moment otherwise, and with no code of the working folder."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sparseseg.contract import child

DOOR = Path(child.__file__)  # itself tested in contract/test_child.py
ROOT = DOOR.parents[2]
STARTS = {"subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output", "self._run"}
NEVER = {"os.system", "os.popen", "os.startfile", "subprocess.getoutput", "subprocess.getstatusoutput"}
SAFE = {"child_options", "child.child_options"}
HIDES = {"no_window"}  # is enough where the command is isolated itself (-I)


def complaints(source):
    """What is called, of the calls that may open a window, or run what lies in the working folder."""
    found = []
    for node in ast.walk(ast.parse(source)):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        options = {ast.unparse(k.value.func) for k in node.keywords if k.arg is None and isinstance(k.value, ast.Call)} if called else set()
        isolated = bool(called and node.args) and "'-I'" in ast.unparse(node.args[0])
        if called in NEVER or (called in STARTS and not options & (SAFE | HIDES if isolated else SAFE)):
            found.append(called)
    return found


@pytest.mark.parametrize("path", sorted(set(ROOT.rglob("*.py")) - {DOOR}), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_child_process_opens_a_window_or_runs_code_of_the_working_folder(path):
    assert not complaints(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("subprocess.run(command, **child_options(environment))", 0),
        ("subprocess.run(command, **no_window())", 1),
        ("subprocess.run([python, '-I', program], **no_window())", 0),
        ("subprocess.run(command, check=False)", 1),
        ("subprocess.run(command, **options)", 1),
        ("os.system('taskkill')", 1),
    ],
)
def test_the_check_sees_what_it_should(source, count):
    assert len(complaints(source)) == count


def test_taskkill_is_among_them(monkeypatch):
    """On Windows, as far as that can be played here."""
    called = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x08000000, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x00000200, raising=False)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: called.append((command[0], options["creationflags"])))
    child._end_group(1234)
    [(program, flags)] = called
    assert Path(program).is_absolute() or program.startswith("C:\\")  # not one in the working folder
    assert flags == 0x08000000
    assert child.child_options()["creationflags"] == 0x08000000
    assert child._own_group() == {"creationflags": 0x08000200}
