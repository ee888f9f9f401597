"""The Dockerfile, read and not built: what it copies is there, what it starts runs, and nobody is root in it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def instructions():
    """(name, arguments) of each, with its continuation lines."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    whole = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    return [tuple(line.split(maxsplit=1)) for line in whole.splitlines() if line.strip()]


def of(name):
    return [arguments for each, arguments in instructions() if each == name]


def copied():
    return [source for arguments in of("COPY") for source in arguments.split()[:-1]]


def test_what_is_copied_is_there_and_nothing_else_reaches_the_build():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    assert sorted(copied()) == sorted(allowed)
    assert all((ROOT / source).exists() for source in copied())


def test_the_package_is_whole_in_what_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = [project["project"]["readme"], *project["project"]["license-files"], "constraints.txt", "pyproject.toml"]
    assert set(needed) <= set(copied())
    (folder,) = project["tool"]["setuptools"]["package-dir"].values()
    for package in project["tool"]["setuptools"]["packages"]:
        assert any(Path(folder, *package.split(".")).is_relative_to(source) for source in copied())
    (extra,) = re.findall(r"'\.\[(\w+)\]'", of("RUN")[0])
    assert extra in project["project"]["optional-dependencies"]
    assert "-c constraints.txt" in of("RUN")[0] and "--no-cache-dir" in of("RUN")[0]


def test_it_begins_with_a_python_that_the_engine_takes_and_ends_as_nobody():
    (base,) = of("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", base)[1]
    assert version in ("3.11", "3.12", "3.13")
    names = [name for name, _ in instructions()]
    assert "ADD" not in names
    (user,) = of("USER")
    assert user.split(":")[0] not in ("root", "0")
    assert names.index("USER") > max(n for n, name in enumerate(names) if name == "RUN")


def test_what_it_starts_runs_in_its_environment(tmp_path):
    (entry,), (command,) = map(json.loads, of("ENTRYPOINT")), map(json.loads, of("CMD"))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts[entry[0]] == "sparseseg.__main__:main"
    for source in copied():  # what the build sees, without the rest of the checkout
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, target)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MERCURE_")}
    environment |= dict(pair.split("=", 1) for arguments in of("ENV") for pair in arguments.split())
    environment |= {"PYTHONPATH": str(tmp_path / "SparseSegSlicer"), "HOME": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", *entry, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "MERCURE_IN_DIR names no folder" in done.stderr
