"""The walls: what may import what, and that the plain files leave the heavy packages alone."""

import ast
import json
import sys
from pathlib import Path

import pytest

import sparseseg

PACKAGE = Path(sparseseg.__file__).parent
# lowest first; a module may import those on the lines above, and those to its left
LAYERS = [
    ["__init__"],
    ["errors"],
    ["geometry", "classes", "settings"],
    ["annotation"],
    ["output", "job", "protocol", "segnrrd", "dicomseries", "dicomseg", "rtstruct", "files", "export", "client"],
    ["prior"],
    ["unet"],
    ["patches", "intensity", "loss", "device"],
    ["augment", "predict", "trainer", "checkpoint"],
    ["estimate", "suggest"],
    ["reach", "refine"],
    ["report"],
    ["session"],
    ["worker", "doctor"],
    ["cli"],
    ["__main__"],
]
RANK = {name: (layer, place) for layer, names in enumerate(LAYERS) for place, name in enumerate(names)}
TOP = (len(LAYERS), 0)
PLAIN = [
    "errors",
    "geometry",
    "classes",
    "settings",
    "job",
    "protocol",
    "client",
    "annotation",
    "output",
    "segnrrd",
    "dicomseries",
    "dicomseg",
    "rtstruct",
    "files",
    "export",
]
HEAVY = ["torch", "slicer", "vtk", "qt", "ctk", "pydicom", "highdicom", "contourpy"]
THIRD_PARTY = {"numpy": set(RANK), "SimpleITK": {"files", "dicomseries", "prior"}}
WITH_TORCH = {"unet", "device", "intensity", "patches", "loss", "augment", "predict", "trainer", "checkpoint", "refine", "session", "doctor"}
WITH_TORCH_IN_A_FUNCTION = {"worker", "cli"}  # they talk before the seconds that loading takes
OPTIONAL_IN_A_FUNCTION = {"dicomseries": {"pydicom"}, "dicomseg": {"highdicom"}, "rtstruct": {"contourpy"}}


def modules():
    return sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports_of(name):
    """(imported module of ours or None, top-level package or None, whether inside a function) for each import of a module."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")[0], id(node) in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sparseseg."):
            yield node.module.split(".")[1], None, id(node) in inner
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield None, node.module.split(".")[0], id(node) in inner
        elif isinstance(node, ast.ImportFrom):
            names = (
                [node.module]
                if node.module
                else [alias.name if alias.name in RANK or alias.name in modules() else "__init__" for alias in node.names]
            )
            yield from ((own.split(".")[0], None, id(node) in inner) for own in names)


def test_every_module_has_its_place():
    assert set(modules()) - set(RANK) == set(), "say in LAYERS where the new module belongs"


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_only(name):
    upward = [own for own, _, _ in imports_of(name) if own is not None and RANK.get(own, TOP) >= RANK.get(name, TOP)]
    assert not upward, f"{name} imports {upward}"


@pytest.mark.parametrize("name", modules())
def test_third_party_packages_stay_where_they_belong(name):
    allowed = {package for package, where in THIRD_PARTY.items() if name in where} | ({"torch"} if name in WITH_TORCH else set())
    later = OPTIONAL_IN_A_FUNCTION.get(name, set()) | ({"torch"} if name in WITH_TORCH_IN_A_FUNCTION else set())
    for _, package, inside in imports_of(name):
        if package is not None and package not in {*sys.stdlib_module_names, "sparseseg"}:
            assert package in allowed or (inside and package in later), f"{name} imports {package}"


def test_the_lists_of_exceptions_name_modules_that_have_a_place():
    assert WITH_TORCH | WITH_TORCH_IN_A_FUNCTION | set(OPTIONAL_IN_A_FUNCTION) | set(PLAIN) <= set(RANK)


def loaded_by(start_python, code):
    out, err = start_python(f"{code}\nimport json, sys\nsys.stdout.write(json.dumps(sorted(sys.modules)))").communicate(timeout=120)
    assert out, err
    return set(json.loads(out))


def test_the_plain_files_leave_the_heavy_packages_unloaded(start_python):
    there = [name for name in PLAIN if name in modules()]
    assert len(there) >= 8
    loaded = loaded_by(start_python, "".join(f"import sparseseg.{name}\n" for name in there))
    assert {f"sparseseg.{name}" for name in there} <= loaded
    assert not loaded & set(HEAVY)


def test_the_command_line_and_the_worker_leave_them_unloaded_until_needed(start_python):
    there = [name for name in ("cli", "worker") if name in modules()]
    loaded = loaded_by(start_python, "".join(f"import sparseseg.{name}\n" for name in there))
    assert not loaded & set(HEAVY)


def test_the_whole_package_leaves_the_hosts_packages_unloaded(start_python):
    there = [name for name in modules() if not name.startswith("__")]
    loaded = loaded_by(start_python, "".join(f"import sparseseg.{name}\n" for name in there))
    assert "torch" in loaded
    assert not loaded & (set(HEAVY) - {"torch"})


# ---------------------------------------------------------------- Slicer's side

LIB = PACKAGE.parent / "SparseSegSlicerLib"
# lowest first; a module may import those on the lines above, and those to its left
LIB_LAYERS = [
    ["__init__"],
    ["Background", "Observers", "States", "Parameters", "SceneExport", "SceneImport", "SliceViews", "DicomFiles"],
    ["Preview", "EngineRun", "SamplePhantom"],
    ["Controller"],
    ["EngineSetup", "EventPump", "Chart", "Tables", "DicomExchange"],
    ["Install", "DicomPanel"],
    ["Widget"],
    ["SelfTest"],
]
LIB_RANK = {name: (layer, place) for layer, names in enumerate(LIB_LAYERS) for place, name in enumerate(names)}
WITH_QT = {"EventPump", "Chart", "Tables", "Install", "DicomPanel", "Widget", "SelfTest"}
HOST_PACKAGES = {"slicer", "vtk", "numpy"}


def lib_imports(path):
    """Every imported module's dotted name; those beside it begin with a dot."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield from ([f".{node.module}"] if node.module else [f".{alias.name}" for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            yield from ([f"{node.module}.{alias.name}" for alias in node.names] if node.module == "sparseseg" else [node.module])


def test_every_lib_module_has_its_place():
    assert {path.stem for path in LIB.glob("*.py")} == set(LIB_RANK), "say in LIB_LAYERS where the module belongs"


@pytest.mark.parametrize("name", sorted(LIB_RANK))
def test_lib_imports_go_down_only_and_to_plain_engine_files(name):
    allowed = HOST_PACKAGES | ({"qt", "ctk"} if name in WITH_QT else set())
    for imported in lib_imports(LIB / f"{name}.py"):
        first, _, rest = imported.partition(".")
        if imported.startswith("."):
            assert LIB_RANK[rest] < LIB_RANK[name], f"{name} imports {rest}"
        elif first == "sparseseg":
            assert rest in {*PLAIN, "__version__"}, f"{name} imports {imported}, which is no plain file"
        else:
            assert first in allowed or first in sys.stdlib_module_names, f"{name} imports {imported}"


def test_the_modules_entry_loads_lib_and_engine_only_when_used():
    entry = PACKAGE.parent / "SparseSegSlicer.py"
    tree = ast.parse(entry.read_text(encoding="utf-8"))
    at_load = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in at_load if isinstance(node, ast.Import) for alias in node.names} | {
        node.module for node in at_load if isinstance(node, ast.ImportFrom)
    }
    assert names <= {"importlib", "sys", "slicer", "slicer.i18n", "slicer.ScriptedLoadableModule"}
    assert len(entry.read_text(encoding="utf-8").splitlines()) < 150
