"""How much memory is free, by all who limit it; and refusals with numbers."""

import sys

import numpy as np
import pytest

from phantoms import make_job, two_organs
from sparseseg.contract import memory
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import channels


def test_what_is_free_here():
    free = memory.free_bytes()
    assert free is None or 0 <= free < 1 << 50
    assert free is not None or sys.platform not in ("linux", "win32")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of an address space is kept on Linux only")
def test_a_limit_of_the_process_counts(start_python):
    code = """
import resource, sys
from sparseseg.contract import memory
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 300_000_000, taken + 300_000_000))
sys.stdout.write(str(memory.free_bytes()))
"""
    out, err = start_python(code).communicate(timeout=60)
    assert 200_000_000 < int(out) <= 300_000_000, err


def test_a_control_group_counts_without_what_is_cached(tmp_path):
    (tmp_path / "memory.max").write_text("5000000000\n")
    (tmp_path / "memory.current").write_text("3000000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000000\n")
    names = ("memory.max", "memory.current", "inactive_file")
    assert memory._left_of(tmp_path, *names) == 2_500_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left_of(tmp_path, *names) is None
    assert memory._left_of(tmp_path / "none", *names) is None


def test_refused_with_numbers(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 3_140_000_000)
    memory.check("a.nrrd", 3e9)
    with pytest.raises(InputError, match=r"a.nrrd needs 9.0 GB of memory to be read, and 3.1 GB are free"):
        memory.check("a.nrrd", 9e9)
    with pytest.raises(InputError, match="far too much"):
        memory.check("a.nrrd", memory.volume_bytes((2**63, 2**63, 2**63), 8))
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    memory.check("a.nrrd", 9e99)


def test_resampling_is_asked_for(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    grid = Geometry.from_axes((8, 8, 8), (1, 1, 1))
    with pytest.raises(InputError, match=r"b.nrrd needs .* to be resampled"):
        channels.onto_grid("b.nrrd", np.zeros((4, 4, 4), np.int16), Geometry.from_axes((4, 4, 4), (2, 2, 2)), grid)


def test_opening_a_job_that_could_not_be_segmented_says_so(tmp_path, monkeypatch):
    from sparseseg.session.devices import DeviceChoice
    from sparseseg.session.session import Session

    folder = make_job(tmp_path / "job", two_organs((6, 10, 8)))
    monkeypatch.setattr(memory, "free_bytes", lambda: 1_000_000)
    with pytest.raises(InputError, match=r"A volume of 6 x 10 x 8 voxels needs 400 MB of memory to be segmented, and 1 MB are free"):
        Session.open(folder, DeviceChoice("cpu"), None)
