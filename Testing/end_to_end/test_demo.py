"""`make demo CASE=folder` on a small case."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cases import annotate_slices, spread_slices
from phantoms import two_organs
from sparseseg.io import files


@pytest.mark.slow
def test_the_demo_leaves_image_annotation_result_and_report(tmp_path):
    phantom = two_organs()
    case = tmp_path / "case"
    case.mkdir()
    files.write_volume(case / "image.nii.gz", phantom.image, phantom.geometry)
    files.write_volume(case / "truth.nii.gz", phantom.truth, phantom.geometry)
    (case / "case.json").write_text(json.dumps({"name": "phantom", "labels": {"dark": 2, "bright": 1}}), encoding="utf-8")
    script = Path(__file__).resolve().parents[1] / "demo.py"
    budget = ["--time-budget", "25"]  # 20 steps of the network on a slow machine, too
    command = [sys.executable, str(script), "--case", str(case), "--output", str(tmp_path / "out"), *budget]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["annotation.seg.nrrd", "dense.seg.nrrd", "image.nrrd", "report.html"]
    rows = {line.split("  ")[0]: line.split()[-4:] for line in done.stdout.splitlines() if line.startswith(("bright", "dark", "mean"))}
    assert set(rows) == {"bright", "dark", "mean"}
    assert all(float(value) > 0.6 for growing, prior, _, together in rows.values() for value in (growing, prior, together))
    assert "the network's share of the result: 0." in done.stdout
    dense = files.read_annotation(tmp_path / "out" / "dense.seg.nrrd", phantom.geometry)
    assert dense.classes.names == ["bright", "dark"]
    assert "against the truth" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_annotated_slices_hold_all_their_truth_and_nothing_else_is_annotated():
    truth = two_organs().truth
    slices = spread_slices(truth, 0, 3)
    annotation = annotate_slices(truth, slices)
    for axis, index in slices:
        assert axis == 0
        assert (annotation[index] == truth[index] + 1).all()
        annotation[index] = 0
    assert not annotation.any()
