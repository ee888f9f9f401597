"""The walls: what may import what, and that the plain files leave the heavy packages alone."""

import ast
import json
import sys
from pathlib import Path

import pytest

import sparseseg

PACKAGE = Path(sparseseg.__file__).parent
# what each room may import besides itself; a host is a module that lies in no room
ROOMS = {
    "contract": set(),
    "annotation": {"contract"},
    "io": {"contract"},
    "prior": {"contract", "annotation"},
    "network": {"contract", "annotation"},
    "quality": {"contract", "annotation"},
    "session": {"contract", "annotation", "prior", "network", "quality"},
    "report": {"contract"},
    # a host with rooms of its own
    "cohort": {"contract", "annotation", "io", "network", "quality", "session", "report", "console", "stopping", "streams"},
}
HOSTS = [
    "joblog",
    "streams",
    "worker",
    "doctor",
    "keeper",
    "stopping",
    "console",
    "cli",
    "__main__",
]  # each may import those before it, and every room
PLAIN = {"contract", "annotation", "io"}
HEAVY = ["torch", "slicer", "vtk", "qt", "ctk", "pydicom", "highdicom", "contourpy", "numba", "ray", "tifffile", "zarr"]
WITH_TORCH = {
    "network",
    "doctor",
    "session.alone",
    "session.network_voice",
    *(f"cohort.{name}" for name in ("lessons", "preparing", "processes", "training")),
    *(f"prior.{name}" for name in ("refiner", "refiner_network", "refiner_view", "refiner_vote", "pooling", "rehearsal")),
}
WITH_TORCH_IN_A_FUNCTION = {"worker", "cli"}  # they talk before the seconds that loading takes
THIRD_PARTY = {
    "numpy": None,
    "SimpleITK": {"io.itk", "io.decoding", "prior.interpolation", "prior.distance", "quality.constraints", "quality.check"},
    "numba": {"prior.kernels", "prior.counting", "prior.refiner_loops"},
}  # None: anywhere
OPTIONAL_IN_A_FUNCTION = {
    **{"io.dicomheader": {"pydicom"}, "io.decoding": {"pydicom"}, "io.dicomseg": {"highdicom"}, "io.rtstruct": {"contourpy"}},
    **{"io.stacking": {"tifffile", "zarr"}, "io.stackwriting": {"tifffile", "zarr"}},
    "cohort.on_ray": {"ray"},
}


def dotted(path, base):
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def modules(base=PACKAGE):
    return sorted(dotted(path, base) for path in base.rglob("*.py"))


def file_of(name, base=PACKAGE):
    path = base.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def room(name):
    return name.split(".")[0]


def imports_of(name, base=PACKAGE, package="sparseseg"):
    """(imported module of ours or None, top-level package or None, whether inside a function) for each import of a module."""
    path = file_of(name, base)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) for n in ast.walk(f)}
    here = name.split(".") if path.name == "__init__.py" and name != "__init__" else name.split(".")[:-1]
    there = set(modules(base))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")[0], id(node) in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] != package:
            yield None, node.module.split(".")[0], id(node) in inner
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            stem = [*start, *(node.module or "").split(".")] if node.level else node.module.split(".")[1:]
            stem = [part for part in stem if part]
            for alias in node.names:
                own = ".".join([*stem, alias.name])
                yield (own if own in there else ".".join(stem) or "__init__"), None, id(node) in inner


def circles(names, base=PACKAGE, package="sparseseg"):
    """The modules that import themselves by way of others."""
    direct = {name: {own for own, _, _ in imports_of(name, base, package) if own is not None} - {name} for name in names}
    reached = {name: set(direct[name]) for name in names}
    for _ in names:
        for name in names:
            reached[name] |= set().union(*(reached[other] for other in reached[name] if other in reached))
    return sorted(name for name in names if name in reached[name])


def test_every_module_has_its_room():
    assert {room(name) for name in modules()} == {*ROOMS, *HOSTS, "__init__"}


@pytest.mark.parametrize("name", modules())
def test_imports_go_down_only(name):
    if room(name) in ROOMS:
        allowed = {room(name), "__init__", *ROOMS[room(name)]}
    else:
        allowed = {"__init__", *ROOMS, *(HOSTS[: HOSTS.index(name)] if name in HOSTS else [])}
    upward = [own for own, _, _ in imports_of(name) if own is not None and room(own) not in allowed]
    assert not upward, f"{name} imports {upward}"


def test_nobody_but_the_command_line_knows_cohorts():
    knowing = {name for name in modules() if room(name) != "cohort" for own, _, _ in imports_of(name) if own is not None and room(own) == "cohort"}
    assert knowing == {"cli"}


def test_no_circle():
    assert not circles(modules())


@pytest.mark.parametrize("name", [name for name in modules() if room(name) != "io"])
def test_who_is_not_in_io_knows_its_door_only(name):
    beyond = [own for own, _, _ in imports_of(name) if own is not None and own.startswith("io.")]
    assert not beyond, f"{name} imports {beyond}"


@pytest.mark.parametrize("name", modules())
def test_third_party_packages_stay_where_they_belong(name):
    allowed = {package for package, where in THIRD_PARTY.items() if where is None or name in where}
    allowed |= {"torch"} if {name, room(name)} & WITH_TORCH else set()
    later = OPTIONAL_IN_A_FUNCTION.get(name, set()) | ({"torch"} if name in WITH_TORCH_IN_A_FUNCTION else set())
    for _, package, inside in imports_of(name):
        if package is not None and package not in {*sys.stdlib_module_names, "sparseseg"}:
            assert package in allowed or (inside and package in later), f"{name} imports {package}"


def test_the_lists_of_exceptions_name_modules_that_exist():
    named = WITH_TORCH | WITH_TORCH_IN_A_FUNCTION | set(OPTIONAL_IN_A_FUNCTION) | PLAIN
    assert named <= {*modules(), *ROOMS}


def loaded_by(start_python, code):
    out, err = start_python(f"{code}\nimport json, sys\nsys.stdout.write(json.dumps(sorted(sys.modules)))").communicate(timeout=120)
    assert out, err
    return set(json.loads(out))


def test_the_plain_files_leave_the_heavy_packages_unloaded(start_python):
    there = [name for name in modules() if room(name) in PLAIN]
    assert len(there) >= 8
    loaded = loaded_by(start_python, "".join(f"import sparseseg.{name}\n" for name in there))
    assert {f"sparseseg.{name}" for name in there} <= loaded
    assert not loaded & set(HEAVY)


def test_the_command_line_and_the_worker_leave_them_unloaded_until_needed(start_python):
    there = ["cli", "worker"]
    loaded = loaded_by(start_python, "".join(f"import sparseseg.{name}\n" for name in there))
    assert not loaded & set(HEAVY)


def test_the_whole_package_leaves_the_hosts_packages_unloaded(start_python):
    compiled = {"prior.kernels", "prior.counting", "prior.refiner_loops"}  # loaded through one door, prior.compiled
    there = [name for name in modules() if not name.startswith("__") and name not in compiled]
    loaded = loaded_by(start_python, "".join(f"import sparseseg.{name}\n" for name in there))
    assert "torch" in loaded
    assert not loaded & (set(HEAVY) - {"torch"})


def test_growing_and_its_session_answer_before_torch_is_loaded(start_python):
    there = ["session.session", "session.prior_voice", "session.devices", "session.judge", "session.publisher", "prior.grown", "prior.reach"]
    loaded = loaded_by(start_python, "".join(f"import sparseseg.{name}\n" for name in there))
    assert not loaded & set(HEAVY)


# ---------------------------------------------------------------- Slicer's side

LIB = PACKAGE.parent / "SparseSegSlicerLib"
LIB_ROOMS = {"i18n": set(), "scene": {"i18n"}, "session": {"scene", "i18n"}, "panel": {"session", "scene", "i18n"}}
HOST_PACKAGES = {"slicer", "vtk", "numpy"}


def engine_imports(path):
    """The engine's modules that a file of Slicer's side imports, dotted, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if room(alias.name) == "sparseseg")
        elif isinstance(node, ast.ImportFrom) and not node.level and room(node.module) == "sparseseg":
            yield from ([node.module.partition(".")[2]] if "." in node.module else [alias.name for alias in node.names])


@pytest.mark.parametrize("name", modules(LIB))
def test_lib_imports_go_down_only_and_to_plain_engine_files(name):
    assert room(name) in {*LIB_ROOMS, "__init__"}, "say in LIB_ROOMS where the module belongs"
    packages = HOST_PACKAGES | ({"qt", "ctk"} if room(name) == "panel" else set())
    for own, package, _ in imports_of(name, LIB, "SparseSegSlicerLib"):
        if own is not None:
            assert room(own) in {room(name), "__init__", *LIB_ROOMS[room(name)]}, f"{name} imports {own}"
        elif package != "sparseseg":
            assert package in packages or package in sys.stdlib_module_names, f"{name} imports {package}"
    for imported in engine_imports(file_of(name, LIB)):
        assert room(imported) in PLAIN or imported == "__version__", f"{name} imports {imported}, which is no plain file"
        assert not imported.startswith("io."), f"{name} imports {imported}, which lies behind a door"


def test_lib_has_no_circle():
    assert not circles(modules(LIB), LIB, "SparseSegSlicerLib")


def test_the_modules_entry_loads_lib_and_engine_only_when_used():
    entry = PACKAGE.parent / "SparseSegSlicer.py"
    tree = ast.parse(entry.read_text(encoding="utf-8"))
    at_load = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in at_load if isinstance(node, ast.Import) for alias in node.names} | {
        node.module for node in at_load if isinstance(node, ast.ImportFrom)
    }
    assert names <= {"importlib", "pathlib", "sys", "slicer", "slicer.i18n", "slicer.ScriptedLoadableModule"}
    assert len(entry.read_text(encoding="utf-8").splitlines()) < 150
