"""A session on a volume whose arrays would not fit into the memory that it may take: every phase, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_MB = 220  # beyond what packages and threads take; a session keeps 8 to 18 bytes a voxel, of 23 million, and 2 more for its result


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's data is kept on Linux only")
@pytest.mark.parametrize("is_huge", ["1", pytest.param("0", marks=pytest.mark.slow)])
def test_every_phase_stays_within_a_memory_that_the_volume_exceeds(tmp_path, is_huge):
    command = [sys.executable, str(Path(__file__).with_name("limited.py")), str(tmp_path), str(LIMIT_MB), is_huge]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=540, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    previews = [(source, is_whole) for source, is_whole, *_ in found["previews"]]
    assert previews[0] == ("growing", True) and ("prior", True) in previews and not previews[-1][1]
    far = [voxels for source, _, revision, voxels in found["previews"] if revision == 3 and source == "growing"]
    assert len(far) > 1 and max(far) < 1_000_000  # strokes far apart are not answered as all that lies between
    assert found["dice"] > 0.9
    assert [code for code, _ in found["warnings"]] == ["large"] * (is_huge == "1")
    assert found["predicted"] == [160, 380, 380]
