"""On a real Ray cluster of two nodes, one of which is killed in the middle: every volume once, and a manifest that is true."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sparseseg
from cases import SHARED, load_case
from sparseseg import cli, io
from sparseseg.cohort.manifest import Manifest
from sparseseg.cohort.segmenting import sha256_of
from sparseseg.contract.errors import WorkerError

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install -e '.[cohort]')")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Ray on Windows is a beta")]
VOLUMES, CROP, LONG_S = 64, (12, 32, 32), 500


@pytest.fixture(autouse=True)
def signals():
    """Ray takes them for itself, where a node lives in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def nodes(monkeypatch):
    """A cluster of two nodes with one core each, and the second one."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(sparseseg.__file__).parents[1]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    yield cluster, second
    cluster.shutdown()


def add_crops(listed):
    """The middle of real cases, where they are there: (K, J, I) as they come."""
    names = [folder for folder in sorted(SHARED.glob("ct-*")) if (folder / "case.json").exists()] if SHARED.is_dir() else []
    for folder in names:
        case = load_case(folder)
        at = tuple(slice(max(0, (n - size) // 2), max(0, (n - size) // 2) + size) for n, size in zip(case.image.shape, CROP, strict=True))
        crop = np.ascontiguousarray(case.image[at])
        geometry = case.geometry.__class__.from_axes(crop.shape, case.geometry.spacing_kji_mm[::-1], (0, 0, 0))
        io.write_volume(listed.parent / f"{folder.name}.nii.gz", crop, geometry)
    listed.write_text("\n".join(["image", *(path.name for path in sorted(listed.parent.glob("*.n*")))][: VOLUMES + 1]) + "\n", encoding="utf-8")


def test_one_of_two_nodes_is_killed_in_the_middle(nodes, model, phantoms, tmp_path):
    cluster, second = nodes
    out = tmp_path / "výsledky sem"
    listed = phantoms(VOLUMES)
    add_crops(listed)
    command = [sys.executable, "-m", "sparseseg", "cohort", "segment", str(model), str(listed), "-o", str(out), "--ray", cluster.address]
    with subprocess.Popen([*command, "--actors", "2", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        wait_for(lambda: hosts(out) >= 2 and len(list(out.glob("segmentations/*.seg.nrrd"))) >= 10, driver)
        cluster.remove_node(second, allow_graceful=False)
        printed, said = driver.communicate(timeout=LONG_S)
    assert driver.returncode == 0, said
    assert printed.strip() == str(out / "index.html")
    manifest = Manifest(out)
    rows, tries = {row.name: row for row in manifest.rows()}, manifest.tries()
    manifest.close()
    assert len(rows) == VOLUMES and {row.state for row in rows.values()} == {"done"}
    done = [name for name, *_, outcome in tries if outcome == "done"]
    assert sorted(done) == sorted(rows)  # none is missing, none was done twice
    assert sorted(path.name for path in (out / "segmentations").iterdir()) == sorted(row.output for row in rows.values())
    assert all(sha256_of(out / "segmentations" / row.output) == row.sha256 for row in rows.values())
    assert not any(path.name in said for path in listed.parent.iterdir())
    died = [name for name, *_, outcome in tries if outcome == "died"]
    assert len(died) <= 1 and all(rows[name].attempts == 2 for name in died)


def hosts(out):
    """How many processes have segmented something."""
    if not (out / "manifest.sqlite").exists():
        return 0
    with sqlite3.connect(f"file:{out / 'manifest.sqlite'}?mode=ro", uri=True) as database:
        return database.execute("SELECT count(DISTINCT pid) FROM tries WHERE outcome = 'done'").fetchone()[0]


def wait_for(what, driver):
    end = time.monotonic() + LONG_S
    while not what():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_cluster_of_its_own_leaves_nothing_behind(model, phantoms, tmp_path, monkeypatch, capsys):
    short = Path(f"/tmp/{os.getpid()}")
    short.mkdir()
    monkeypatch.setattr("sparseseg.cohort.on_ray._SHORT_TEMP", short)
    out = tmp_path / "out"
    before = Path.cwd()
    assert cli.main(["cohort", "segment", str(model), str(phantoms(3, damaged=1)), "-o", str(out), "--actors", "1", "--device", "cpu"]) == 2
    assert "3 done, 1 quarantined" in capsys.readouterr().err
    assert Path.cwd() == before and not ray.is_initialized()
    short.rmdir()  # it is empty


def test_a_cluster_that_is_not_there_is_said(model, phantoms, tmp_path, capsys):
    out = tmp_path / "out"
    code = cli.main(["cohort", "segment", str(model), str(phantoms(1)), "-o", str(out), "--ray", "127.0.0.1:1", "--device", "cpu"])
    assert code == WorkerError.exit_code and "There is no way to the Ray cluster at 127.0.0.1:1" in capsys.readouterr().err
