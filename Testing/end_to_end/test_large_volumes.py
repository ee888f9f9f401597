"""Volumes of microscopes on the command line: stacks in and out, what a run needs said before it starts, and a disk that is full at the end."""

import json
import re

import numpy as np
import pytest

from phantoms import two_organs
from sparseseg import cli, io
from sparseseg.contract import disk, memory
from sparseseg.contract.job import DENSE
from sparseseg.contract.store import OnDisk

PHANTOM = two_organs()
QUICK = ["--steps", "3", "--device", "cpu"]


@pytest.fixture
def inputs(tmp_path):
    np.save(tmp_path / "image.npy", PHANTOM.image)
    np.save(tmp_path / "labels.npy", PHANTOM.annotation)
    return tmp_path


def segment(folder, *more, out="out.npy"):
    return cli.main(["segment", str(folder / "image.npy"), str(folder / "labels.npy"), "-o", str(folder / out), *map(str, more)])


@pytest.mark.slow
def test_a_stack_becomes_a_stack_with_a_report_and_what_it_needs_is_said(inputs, capsys):
    pytest.importorskip("zarr", reason="the extra `large` is not installed")
    more = ["--spacing", "0.01", "--report", inputs / "r.html", "--job", inputs / "job", "--complete-slices", "auto", *QUICK]
    assert segment(inputs, *more, out="out.zarr") == 0
    said = capsys.readouterr().err
    assert said.index("needs about") < said.index("preview")
    assert "of memory" in said
    assert f"of disk in {inputs / 'job'}" in said
    result = io.read_volume(inputs / "out.zarr")
    assert result.geometry.spacing_kji_mm == pytest.approx((0.01, 0.01, 0.01))
    np.testing.assert_array_equal(result.array, np.load(inputs / "job" / DENSE))
    assert "through the middle of the segments" in (inputs / "r.html").read_text(encoding="utf-8")
    assert not list((inputs / "job").glob(".scratch*"))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("disk", r"A volume of 24 x 40 x 36 voxels needs 0 MB of disk in .*, and 0 MB are free. Free 0 MB there, or choose another folder."),
        ("memory", r"A volume of 24 x 40 x 36 voxels needs 40\d MB of memory to be segmented, and 0 MB are free."),
    ],
)
def test_what_is_not_there_is_refused_with_numbers_before_anything_is_read(inputs, what, sentence, monkeypatch, capsys):
    monkeypatch.setattr({"disk": disk, "memory": memory}[what], "free_bytes", lambda *_: 1000)
    monkeypatch.setattr(OnDisk, "_write", lambda *_: pytest.fail("it is read"))
    assert segment(inputs, "--spacing", "1") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(sentence, said), said
    assert sorted(path.name for path in inputs.iterdir()) == ["image.npy", "labels.npy"]


def test_a_stack_without_spacing_is_refused_before_anything_is_copied(inputs, capsys):
    assert segment(inputs, "--job", inputs / "job") == 2
    assert "Give that in mm: --spacing X,Y,Z" in " ".join(capsys.readouterr().err.split())
    assert not (inputs / "job").exists()


@pytest.mark.slow
def test_a_result_that_finds_the_disk_full_is_still_in_the_job(inputs, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sparseseg.io.stackwriting.write_npy", full)
    assert segment(inputs, "--spacing", "1", "--job", inputs / "job", *QUICK) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "out.npy could not be written (No space left on device). Nothing was written. Free 1 MB there" in said
    assert (inputs / "job" / DENSE).exists()
    assert not (inputs / "out.npy").exists()
    record = json.loads((inputs / "job" / "job.json").read_text(encoding="ascii"))
    assert record["geometry"]["shape_kji"] == list(PHANTOM.image.shape)
