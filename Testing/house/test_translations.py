"""Every text that a user reads in Slicer goes through `_()`, as a literal that translators find; numbers go through `number`, not through formats of
their own."""

import ast
import re
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "SparseSegSlicer"
FILES = [MODULE / "SparseSegSlicer.py", *sorted((MODULE / "SparseSegSlicerLib").rglob("*.py")), *(MODULE / "SparseSegSlicerEffect").glob("*.py")]
NAMES = [path.relative_to(MODULE).as_posix() for path in FILES]

SAYING = {  # calls, and which of their arguments a user reads; None: all
    "Message": slice(1, 3),
    "SparseSegError": None,
    "InputError": None,
    "OutputError": None,
    "WorkerError": None,
    "setText": None,
    "setToolTip": None,
    "setFormat": None,
    "setWindowTitle": None,
    "setHorizontalHeaderLabels": None,
    "question": slice(1, 3),
    "getSaveFileName": slice(1, 2),
    "getOpenFileName": slice(1, 2),
    "getExistingDirectory": slice(1, 2),
}
SHOWN = {"text", "toolTip", "helpText", "acknowledgementText", "title"}  # attributes
_WORDS = re.compile(r"[A-Za-z]{3,}")
_UNITS = re.compile(r"^\W*(mm|DICOM|GB|pt)\W*$")


def spoken(node):
    """Literals of an expression that are not in a call of `_`, nor pieces that a name, a condition or a key is made of."""
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in ("_", "wordStyle"):
            return
        inside = [node.func.value] if isinstance(node.func, ast.Attribute) else []  # "...".format(...), ", ".join(...)
        yield from (text for child in [*inside, *node.args] for text in spoken(child))
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str) and _WORDS.search(node.value) and not _UNITS.match(node.value):
            yield node.value
    elif isinstance(node, (ast.JoinedStr, ast.Tuple, ast.List)):
        yield from (text for child in getattr(node, "values", getattr(node, "elts", [])) for text in spoken(child))
    elif isinstance(node, ast.BinOp):
        yield from [*spoken(node.left), *spoken(node.right)]
    elif isinstance(node, ast.BoolOp):
        yield from (text for child in node.values for text in spoken(child))
    elif isinstance(node, ast.IfExp):
        yield from [*spoken(node.body), *spoken(node.orelse)]


def untranslated(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in SAYING:
                yield from (text for argument in node.args[SAYING[name] or slice(None)] for text in spoken(argument))
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            flat = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
            if any(isinstance(target, ast.Attribute) and target.attr in SHOWN for target in flat):
                yield from spoken(node.value)


def test_what_is_said_is_translated():
    texts = {name: list(untranslated(ast.parse(path.read_text(encoding="utf-8")))) for name, path in zip(NAMES, FILES, strict=True)}
    assert {name: said for name, said in texts.items() if said} == {}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_translators_find_whole_literals(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            assert len(node.args) == 1 and isinstance(node.args[0], ast.Constant), f"line {node.lineno}: _() takes one literal; use .format() on it"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_numbers_are_written_by_one_function(path):
    if path.name == "i18n.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            spec = "".join(str(part.value) for part in node.format_spec.values if isinstance(part, ast.Constant))
            assert not re.search(r"[efgEFG%]$", spec), f"line {node.lineno}: {spec} writes numbers in a way of its own; use i18n.number"


def test_the_test_finds_what_it_looks_for():
    code = """
label.text = "Hello there"
say(Message("info", f"{name} was read.", _("Go on.")))
raise InputError("Nothing here." if empty else _("Too much."), "Look.")
label.text = "\\n".join([_("fine"), ""])
label.text = _("{n} voxels").format(n=3) + "!"
"""
    assert sorted(untranslated(ast.parse(code))) == [" was read.", "Hello there", "Look.", "Nothing here."]
