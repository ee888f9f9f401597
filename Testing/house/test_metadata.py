"""What the Extensions Index and Slicer's build ask of the repository: catalogue entry, CMake lists, pictures, imports.

The catalogue's rules are those of `scripts/check_description_files.py` in https://github.com/Slicer/ExtensionsIndex and of
`Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json` in https://github.com/Slicer/Slicer.
"""

import ast
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAME = "SparseSegSlicer"
MODULE = ROOT / NAME
ENTRY = ROOT / f"{NAME}.json"
SCHEMA = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#"
REQUIRED_KEYS = {"$schema", "category", "scm_url"}
KEYS = {  # the whole schema: it allows no others
    "$schema": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "category": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "scm_revision": str,
    "scm_type": str,
    "scm_url": str,
    "tier": int,
}
CATEGORIES = {"Segmentation", "Active Learning"}  # those of the index's fixed list that describe this extension
LICENCES = ["LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt"]
LARGEST_FILE = 5 * 2**20
# a review of the index allows these at file scope; what else is needed is imported where it is used
SLICERS = {"slicer", "vtk", "numpy", "SimpleITK", "scipy", "qt", "ctk", "SegmentEditorEffects"}
AT_FILE_SCOPE = {*sys.stdlib_module_names, *SLICERS, f"{NAME}Lib", "sparseseg"}
ONLY_IN_THE_ENGINES_PROCESS = {"torch", "torchvision"}
# stands in for Slicer's macros, in `cmake -P`, where project() and add_subdirectory() do not exist: neither a compiler nor Slicer is needed
STUBS = """
macro(project name)
  set(PROJECT_NAME "${name}")
endmacro()
macro(find_package)
endmacro()
macro(add_subdirectory folder)
  set(CMAKE_CURRENT_SOURCE_DIR "${ROOT}/${folder}")
  include("${ROOT}/${folder}/CMakeLists.txt")
endmacro()
macro(slicer_add_python_unittest)
  message(STATUS "unittest=${ARGN}")
endmacro()
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown keywords ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(value NAME SCRIPTS RESOURCES WITH_GENERIC_TESTS)
    message(STATUS "${value}=${MY_${value}}")
  endforeach()
endfunction()
set(CMAKE_CURRENT_SOURCE_DIR "${ROOT}")
set(BUILD_TESTING ON)
foreach(file Slicer_USE_FILE Slicer_EXTENSION_GENERATE_CONFIG Slicer_EXTENSION_CPACK)
  set(${file} "${EMPTY}")
endforeach()
include("${ROOT}/CMakeLists.txt")
foreach(value PROJECT_NAME EXTENSION_DESCRIPTION EXTENSION_DEPENDS EXTENSION_README_FILE EXTENSION_LICENSE_FILE)
  message(STATUS "${value}=${${value}}")
endforeach()
"""


# ---- reading


def entry():
    return json.loads(ENTRY.read_text(encoding="utf-8"))


def cmake_text(folder):
    return re.sub(r"(?m)(^|\s)#.*$", "", (folder / "CMakeLists.txt").read_text(encoding="utf-8"))


def quoted(variable):
    """The quoted string that the root file sets a variable to, found as the index finds it."""
    found = re.findall(rf'set\s*\({variable}\s*"([^"]+)"[ ]*\)', cmake_text(ROOT))
    assert len(found) == 1, f'CMakeLists.txt must have one set({variable} "...") with the value on one line in quotes'
    return found[0]


def listed(variable):
    found = re.findall(rf"set\s*\({variable}\s+([^)]*)\)", cmake_text(MODULE))
    assert len(found) == 1, f"SparseSegSlicer/CMakeLists.txt must have one set({variable} ...)"
    return found[0].replace("${MODULE_NAME}", NAME).split()


def clean(paths):
    """Files below the module's folder, as CMake names them, without what tools leave behind."""
    files = [p.relative_to(MODULE) for p in paths if p.is_file()]
    return sorted(p.as_posix() for p in files if not any(part.startswith(".") or part == "__pycache__" for part in p.parts))


def scripts_in_tree():
    folders = [MODULE / folder for folder in (f"{NAME}Effect", f"{NAME}Lib", "sparseseg")]
    return clean([MODULE / f"{NAME}.py", *(path for folder in folders for path in folder.rglob("*.py"))])


def resources_in_tree():
    return clean([*(MODULE / "Resources").rglob("*"), *(MODULE / "sparseseg").rglob("*.pt")])


def png_size(path):
    """Width and height; anything but a PNG is refused."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is no PNG"
    return struct.unpack(">II", head[16:24])


def png_has_alpha(path):
    return path.read_bytes()[25] == 6  # colour type RGBA


def raw_urls():
    return [quoted("EXTENSION_ICONURL"), *quoted("EXTENSION_SCREENSHOTURLS").split()]


def path_of(url):
    """The file in this repository that a raw link leads to once the branch of the catalogue entry is pushed."""
    repository = entry()["scm_url"].removeprefix("https://github.com/").removesuffix(".git")
    start = f"https://raw.githubusercontent.com/{repository}/{entry()['scm_revision']}/"
    assert url.startswith(start), f"{url} does not begin with {start}"
    return ROOT / url.removeprefix(start)


# ---- the catalogue entry


def test_entry_has_the_keys_of_the_schema_and_no_others():
    data = entry()
    assert data["$schema"] == SCHEMA
    assert set(data) >= REQUIRED_KEYS
    assert set(data) <= set(KEYS), "the schema allows no additional keys"
    for key, value in data.items():
        assert type(value) is KEYS[key], f"{key} must be {KEYS[key].__name__}"
    assert all(isinstance(name, str) for name in data["build_dependencies"])
    assert 1 <= data["tier"] <= 5


def test_entry_ends_its_lines_with_lf():
    content = ENTRY.read_bytes()
    assert b"\r" not in content
    assert content.endswith(b"}\n")


def test_category_is_one_of_the_index():
    assert entry()["category"] in CATEGORIES


def test_the_repository_is_named_slicer_and_the_extension_is_not():
    url = entry()["scm_url"]
    assert re.fullmatch(r"https://github\.com/[\w-]+/Slicer[\w-]+\.git", url), url
    assert not NAME.lower().startswith("slicer")
    assert quoted("EXTENSION_HOMEPAGE") == url.removesuffix(".git")


def test_file_project_and_module_have_one_name():
    assert re.findall(r"project\s*\(\s*([^\s)]+)", cmake_text(ROOT)) == [ENTRY.stem]
    assert re.findall(r"add_subdirectory\(\s*([^\s)]+)", cmake_text(ROOT)) == [ENTRY.stem]
    assert re.findall(r"set\(MODULE_NAME\s+([^\s)]+)\)", cmake_text(MODULE)) == [ENTRY.stem]


def test_entry_and_cmake_name_the_same_dependencies():
    """None: PyTorch's extension is not needed, since torch is installed in a child process and never loaded into Slicer."""
    depends = quoted("EXTENSION_DEPENDS")
    assert entry()["build_dependencies"] == ([] if depends == "NA" else depends.split())
    assert "PyTorch" not in depends


# ---- the root CMake file, its pictures and licence


def test_description_is_one_or_two_sentences_that_cmake_passes_on_whole():
    text = quoted("EXTENSION_DESCRIPTION")
    assert 1 <= len(re.findall(r"\.(?:\s|$)", text)) <= 2
    assert not set(text) & set(';"\\\n'), "Slicer passes it on unquoted: a semicolon would split it"


def test_contributors_are_written_with_their_organisation_in_the_module_too():
    assert re.fullmatch(r"[^();]+ \([^();]+\)", quoted("EXTENSION_CONTRIBUTORS"))
    assert f'self.parent.contributors = ["{quoted("EXTENSION_CONTRIBUTORS")}"]' in (MODULE / f"{NAME}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "variable", ["HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS", "README_FILE", "LICENSE_FILE"]
)
def test_the_root_file_sets_every_field(variable):
    assert quoted(f"EXTENSION_{variable}").strip()


def test_the_homepage_tells_what_a_reviewer_looks_for():
    """A picture, the module, a tutorial that says where its data come from, how to cite, the licence, what stays on disk."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for words in ("**Sparse Segmentation**", "## Tutorial", "**Data.**", "## How to cite", "## Licence\n\nApache-2.0", "Nothing leaves the machine"):
        assert words in text, words
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)
    assert text.index(pictures[0]) < text.index("\n## "), "one at the top"
    assert "extension *PyTorch* is not needed" in text and "can be deleted" in text


@pytest.mark.parametrize("which", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_every_link_leads_to_a_png_of_the_tree(which):
    for url in quoted(which).split():
        assert "&" not in url
        assert url.endswith(".png"), url
        assert path_of(url).is_file(), f"{url}: there is no {path_of(url)}"
        assert min(png_size(path_of(url))) >= 128


@pytest.mark.parametrize("path", [ROOT / "Resources" / f"{NAME}.png", MODULE / "Resources" / "Icons" / f"{NAME}.png"], ids=["extension", "module"])
def test_icons_are_128_by_128_and_transparent(path):
    assert png_size(path) == (128, 128)
    assert png_has_alpha(path)


def test_thumbnail_has_the_size_that_sample_data_shows():
    assert png_size(MODULE / "Resources" / "Icons" / "SparseSegPhantom.png") == (260, 280)


def test_the_icon_link_is_the_icon():
    assert path_of(quoted("EXTENSION_ICONURL")) == ROOT / "Resources" / f"{NAME}.png"


def test_licence_lies_where_the_index_looks():
    there = [name for name in LICENCES if (ROOT / name).is_file()]
    assert there, f"none of {LICENCES} in {ROOT}"
    assert quoted("EXTENSION_LICENSE_FILE") == f"${{CMAKE_CURRENT_SOURCE_DIR}}/{there[0]}"
    assert quoted("EXTENSION_README_FILE") == "${CMAKE_CURRENT_SOURCE_DIR}/README.md"


def tracked():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git repository here, so what is tracked is unknown")
    done = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return sorted({ROOT / name for name in done.stdout.split("\0") if name})


def test_no_file_is_large():
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in tracked() if p.is_file() and p.stat().st_size > LARGEST_FILE}
    assert not large, f"more than {LARGEST_FILE} bytes; data belong to a release: {large}"


def test_no_linked_or_installed_file_is_ignored_by_git():
    needed = [*map(path_of, raw_urls()), *(MODULE / name for name in [*listed("MODULE_PYTHON_SCRIPTS"), *listed("MODULE_PYTHON_RESOURCES")])]
    ignored = sorted(str(path) for path in set(needed) - set(tracked()) if path.is_file())
    assert not ignored, f"not in git, and .gitignore keeps them out: {ignored}"


# ---- the module's CMake file


@pytest.mark.parametrize(("variable", "in_tree"), [("MODULE_PYTHON_SCRIPTS", scripts_in_tree), ("MODULE_PYTHON_RESOURCES", resources_in_tree)])
def test_lists_hold_what_the_tree_holds(variable, in_tree):
    names, there = listed(variable), in_tree()
    assert len(names) == len(set(names)), f"{variable} lists a file twice: {sorted({n for n in names if names.count(n) > 1})}"
    missing = "".join(f"\n  {name}" for name in there if name not in names)
    extra = "".join(f"\n  {name}" for name in names if name not in there)
    assert not missing, f"add to {variable} in SparseSegSlicer/CMakeLists.txt, or Slicer will not install it:{missing}"
    assert not extra, f"remove from {variable} in SparseSegSlicer/CMakeLists.txt, or CMake stops; there is no such file:{extra}"


def test_lists_are_not_empty_by_mistake():
    assert f"{NAME}.py" in listed("MODULE_PYTHON_SCRIPTS")
    assert "sparseseg/worker.py" in scripts_in_tree()
    assert f"Resources/Icons/{NAME}.png" in resources_in_tree()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """What CMake itself makes of both files, with stubs for Slicer's macros."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    folder = tmp_path_factory.mktemp("cmake")
    (folder / "empty.cmake").write_text("", encoding="utf-8")
    (folder / "stubs.cmake").write_text(STUBS, encoding="utf-8")
    command = ["cmake", f"-DROOT={ROOT.as_posix()}", f"-DEMPTY={(folder / 'empty.cmake').as_posix()}", "-P", str(folder / "stubs.cmake")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr  # warnings
    return dict(line.removeprefix("-- ").split("=", 1) for line in done.stdout.splitlines())


def test_cmake_reads_both_files_as_this_test_does(evaluated):
    assert evaluated["PROJECT_NAME"] == evaluated["NAME"] == NAME
    assert evaluated["SCRIPTS"].split(";") == listed("MODULE_PYTHON_SCRIPTS")
    assert evaluated["RESOURCES"].split(";") == listed("MODULE_PYTHON_RESOURCES")
    assert evaluated["EXTENSION_DESCRIPTION"] == quoted("EXTENSION_DESCRIPTION")
    assert evaluated["EXTENSION_DEPENDS"] == quoted("EXTENSION_DEPENDS")


def test_cmake_registers_the_self_test_and_finds_readme_and_licence(evaluated):
    assert evaluated["unittest"] == f"SCRIPT;{NAME}.py"
    assert evaluated["WITH_GENERIC_TESTS"] == "TRUE"
    assert Path(evaluated["EXTENSION_README_FILE"]).is_file()
    assert Path(evaluated["EXTENSION_LICENSE_FILE"]).is_file()


def test_the_self_test_has_a_workflow_on_three_systems_that_says_whether_it_ever_ran():
    text = (ROOT / ".github" / "workflows" / "slicer.yml").read_text(encoding="utf-8")
    for words in ("os: linux", "os: win", "os: macosx", "stability=release", "--testing", f"'{NAME}')", "it has not been run yet"):
        assert words in text, words


# ---- what the module's files import


def imports(tree):
    """(top-level package, whether it is imported when the file is loaded) for every import; those relative to the package are left out."""
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))]
    later = {id(inner) for function in functions for inner in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], id(node) not in later) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0], id(node) not in later
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"} and node.args:
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
            yield str(name).split(".")[0], id(node) not in later


def complaints(source):
    found = list(imports(ast.parse(source)))
    heavy = [f"imports {name}, which only the engine's process may" for name, _ in found if name in ONLY_IN_THE_ENGINES_PROCESS]
    return heavy + [f"imports {name} at file scope; import it where it is used" for name, now in found if now and name and name not in AT_FILE_SCOPE]


@pytest.mark.parametrize("name", [name for name in scripts_in_tree() if not name.startswith("sparseseg/")])
def test_module_files_import_only_what_slicer_brings(name):
    assert not complaints((MODULE / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import os, vtk\nfrom slicer.util import loadUI\nfrom .Widget import Widget\nfrom sparseseg.contract.job import Job", 0),
        ("import monai", 1),
        ("from monai.nets import UNet", 1),
        ("try:\n    import pydicom\nexcept ImportError:\n    pydicom = None", 1),
        ("class A:\n    import pandas", 1),
        ("def f():\n    import PyTorchUtils", 0),
        ("def f():\n    import torch", 1),
        ("import torch.nn as nn", 2),
        ("def f():\n    return importlib.import_module('torch.cuda')", 1),
        ("def f(name):\n    return importlib.import_module(name)", 0),
    ],
)
def test_the_import_check_sees_what_it_should(source, count):
    assert len(complaints(source)) == count
