"""The command line as a user types it, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from phantoms import two_organs
from sparseseg import cli
from sparseseg.contract.classes import BACKGROUND_TAG, ClassTable, Segment
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import Job
from sparseseg.contract.protocol import Error, Preview, Result, Warning, decode_event
from sparseseg.io import files

QUICK = ["--steps", "6", "--device", "cpu"]
TERMINOLOGY = "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"


def sparseseg(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "sparseseg", *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=300, check=False, **options
    )


def run(*arguments):
    """In this process: quicker than `sparseseg`."""
    return cli.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def phantom():
    return two_organs()


@pytest.fixture
def inputs(tmp_path, phantom):
    """image and annotation files, in a folder with a space and accents."""
    folder = tmp_path / "Žluť dir"
    folder.mkdir()
    segments = (
        Segment("Segment_a", "Léber", (0.8, 0.2, 0.1), {"TerminologyEntry": TERMINOLOGY}),
        Segment("Segment_b", "dark", (0.1, 0.2, 0.9)),
    )
    classes = ClassTable(segments, Segment("bg", "Background", (0.5, 0.5, 0.5), {BACKGROUND_TAG: "1"}))
    files.write_volume(folder / "image.nrrd", phantom.image, phantom.geometry)
    files.write_annotation(folder / "strokes.seg.nrrd", phantom.annotation, phantom.geometry, classes)
    return folder


@pytest.mark.slow
def test_segment_writes_named_coloured_segments_and_all_that_was_asked_for(inputs, phantom):
    before = {p: p.read_bytes() for p in inputs.iterdir()}
    extra = ["--weights", inputs / "w.nii.gz", "--report", inputs / "r.html", "--save-model", inputs / "m.pt", "--job", inputs / "job"]
    done = sparseseg("segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "dense.seg.nrrd", *QUICK, *extra)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(inputs / "dense.seg.nrrd")
    assert "preview after" in done.stderr
    header = sitk.ReadImage(str(inputs / "dense.seg.nrrd"))
    assert header.GetMetaData("Segment0_ID") == "Segment_a"
    assert TERMINOLOGY in header.GetMetaData("Segment0_Tags")
    result = files.read_annotation(inputs / "dense.seg.nrrd", phantom.geometry)
    assert [s.name for s in result.classes.segments] == ["Léber", "dark"]
    assert [s.color for s in result.classes.segments] == [(0.8, 0.2, 0.1), (0.1, 0.2, 0.9)]
    labelled = phantom.annotation > 1
    np.testing.assert_array_equal(result.annotation[labelled], phantom.annotation[labelled])
    weights = files.read_volume(inputs / "w.nii.gz").array
    np.testing.assert_array_equal(weights > 0, phantom.annotation > 0)
    assert "Léber" in (inputs / "r.html").read_text(encoding="utf-8")
    assert (inputs / "job" / "dense.npy").exists()
    assert {p: p.read_bytes() for p in before} == before  # inputs untouched


@pytest.mark.slow
def test_a_forgotten_structure_stands_in_the_report_and_right_annotation_does_not(inputs, phantom):
    forgetful = phantom.annotation.copy()
    forgetful[12][phantom.truth[12] == 2] = 1
    pages = {}
    for name, annotation in (("right", phantom.annotation), ("forgetful", forgetful)):
        labels = sitk.GetImageFromArray(annotation)
        labels.CopyInformation(sitk.ReadImage(str(inputs / "image.nrrd")))
        sitk.WriteImage(labels, str(inputs / f"{name}.nii.gz"))
        extra = ["--report", inputs / f"{name}.html", *QUICK]
        done = sparseseg("segment", inputs / "image.nrrd", inputs / f"{name}.nii.gz", "-o", inputs / f"{name}-dense.nii.gz", *extra)
        assert done.returncode == 0, done.stderr
        pages[name] = (inputs / f"{name}.html").read_text(encoding="utf-8")
    (entry,) = re.findall("<li>(.*?)</li>", pages["forgetful"])
    assert re.fullmatch(r"The axial slice 12 is complete, but what looks like segment 2 is background there \(\d+ voxels\)\.", entry)
    assert "Check the annotation" in pages["forgetful"]
    assert "Check the annotation" not in pages["right"]


@pytest.mark.slow
def test_a_label_map_in_gives_a_label_map_out_on_the_same_grid(inputs, phantom):
    sitk_image = sitk.GetImageFromArray(phantom.annotation)
    sitk_image.CopyInformation(sitk.ReadImage(str(inputs / "image.nrrd")))
    sitk.WriteImage(sitk_image, str(inputs / "labels.nii.gz"))
    done = sparseseg("segment", inputs / "image.nrrd", inputs / "labels.nii.gz", "-o", inputs / "dense.nii.gz", *QUICK)
    assert done.returncode == 0, done.stderr
    dense = files.read_volume(inputs / "dense.nii.gz")
    assert not dense.geometry.difference_from(phantom.geometry)
    assert set(np.unique(dense.array)) <= {0, 1, 2}


@pytest.mark.slow
def test_json_prints_the_protocols_events_and_nothing_else(inputs):
    done = sparseseg("segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "d.seg.nrrd", "--json", *QUICK)
    assert done.returncode == 0
    events = [decode_event(line) for line in done.stdout.splitlines()]
    assert isinstance(events[-1], Result)
    assert any(isinstance(e, Preview) for e in events)


@pytest.mark.slow
def test_the_same_seed_and_steps_give_the_same_result(inputs):
    for name in ("a", "b"):
        assert (
            sparseseg("segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / f"{name}.nrrd", "--seed", "3", *QUICK).returncode
            == 0
        )
    assert (inputs / "a.nrrd").read_bytes() == (inputs / "b.nrrd").read_bytes()


@pytest.mark.slow
def test_predict_and_start_from_use_a_saved_model(inputs, phantom):
    model = inputs / "model.pt"
    annotated = [inputs / "image.nrrd", inputs / "strokes.seg.nrrd"]
    assert sparseseg("segment", *annotated, "-o", inputs / "a.seg.nrrd", "--save-model", model, "--steps", "200", "--device", "cpu").returncode == 0
    done = sparseseg("predict", model, inputs / "image.nrrd", "-o", inputs / "p.seg.nrrd")
    assert done.returncode == 0, done.stderr
    result = files.read_annotation(inputs / "p.seg.nrrd", phantom.geometry)
    assert [s.name for s in result.classes.segments] == ["Léber", "dark"]
    agreement = (np.maximum(result.annotation, 1) - 1 == phantom.truth).mean()
    assert agreement > 0.94 > (phantom.truth == 0).mean()  # far better than calling all background
    assert sparseseg("segment", *annotated, "-o", inputs / "b.seg.nrrd", "--start-from", model, *QUICK).returncode == 0


@pytest.mark.slow
def test_complete_slices_make_unpainted_voxels_background(inputs, phantom):
    strokes = np.where(phantom.annotation > 1, phantom.annotation, 0).astype(np.uint8)
    files.write_annotation(inputs / "organs.seg.nrrd", strokes, phantom.geometry, phantom.classes)
    refused = sparseseg("segment", inputs / "image.nrrd", inputs / "organs.seg.nrrd", "-o", inputs / "d.nrrd", *QUICK)
    assert refused.returncode == 2
    assert "No background is labelled" in refused.stderr
    for choice in ("auto", "axial:6,12,18"):
        weights = inputs / "w.nrrd"
        done = sparseseg(
            "segment",
            inputs / "image.nrrd",
            inputs / "organs.seg.nrrd",
            "-o",
            inputs / "d.nrrd",
            "--complete-slices",
            choice,
            "--weights",
            weights,
            *QUICK,
        )
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(files.read_volume(weights).array > 0, phantom.annotation > 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_keeps_the_best_result_so_far(inputs):
    command = [sys.executable, "-m", "sparseseg", "segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "d.seg.nrrd"]
    process = subprocess.Popen(
        [*map(str, command), "--json", "--device", "cpu", "--time-budget", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it, and so would its children
    )
    for line in process.stdout:
        if '"stage":"training"' in line and '"step":0' not in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert '"reason":"finish"' in out
    assert (inputs / "d.seg.nrrd").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills")
def test_a_worker_that_dies_is_exit_code_4_and_the_job_resumes(inputs):
    job = inputs / "job"
    command = [
        sys.executable,
        "-m",
        "sparseseg",
        "segment",
        inputs / "image.nrrd",
        inputs / "strokes.seg.nrrd",
        "-o",
        inputs / "d.seg.nrrd",
        "--job",
        job,
    ]
    process = subprocess.Popen(
        [*map(str, command), "--json", "--device", "cpu", "--time-budget", "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    pid = 0
    for line in process.stdout:
        pid = pid or json.loads(line).get("pid", 0)
        if '"stage":"training"' in line:
            break
    os.kill(pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "ended unexpectedly" in out
    assert not (inputs / "d.seg.nrrd").exists()
    assert sparseseg(*command[3:], *QUICK).returncode == 0


@pytest.mark.slow
def test_doctor_runs_a_real_convolution_and_says_what_it_would_choose():
    done = sparseseg("doctor")
    assert done.returncode == 0
    for word in ("torch", "TFLOP/s", "GiB free", "choice: "):
        assert word in done.stdout
    found = json.loads(sparseseg("doctor", "--json").stdout)
    assert found["devices"][-1]["tflops"]["float32"] > 0


def write(path, array, components=1):
    image = sitk.GetImageFromArray(array, isVector=components > 1)
    sitk.WriteImage(image, str(path))
    return path


def _broken_inputs(folder, phantom):
    """name -> (IMAGE, ANNOTATION, further options, words of the sentence)."""
    image, strokes = folder / "image.nrrd", folder / "strokes.seg.nrrd"
    nan = phantom.image.astype(np.float32)
    nan[0, 0, 0] = np.nan
    (folder / "empty.nrrd").write_bytes(b"")
    (folder / "foreign.nrrd").write_bytes(b"MZ" + bytes(500))
    (folder / "short.nrrd").write_bytes(image.read_bytes()[:-2000])
    (folder / "nodicom").mkdir()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "notes.txt").write_text("hello")
    labels = np.zeros_like(phantom.annotation)
    no_background = np.where(phantom.annotation > 1, phantom.annotation, 0).astype(np.uint8)
    background_alone = np.where(phantom.annotation > 0, 1, 0).astype(np.uint8)

    def map_of(name, array, **changes):
        geometry = replace(phantom.geometry, **changes)
        files.write_volume(folder / name, array, geometry)
        return folder / name

    def strokes_of(name, array):
        files.write_annotation(folder / name, array, phantom.geometry, phantom.classes)
        return folder / name

    shifted = [list(row) for row in phantom.geometry.ijk_to_lps]
    shifted[0][3] += 7
    torch.save({"format": "sparseseg-model", "version": 99}, folder / "future.pt")
    (folder / "broken.pt").write_bytes(b"PK\x03\x04 nothing")
    torch.save({"evil": Evil()}, folder / "evil.pt")
    return {
        "missing image": (folder / "no.nrrd", strokes, [], "no.nrrd"),
        "empty file": (folder / "empty.nrrd", strokes, [], "empty"),
        "foreign file": (folder / "foreign.nrrd", strokes, [], "foreign.nrrd"),
        "truncated file": (folder / "short.nrrd", strokes, [], "short.nrrd"),
        "folder without DICOM": (folder / "nodicom", strokes, [], "DICOM"),
        "not a number": (write(folder / "nan.nrrd", nan), strokes, [], "not a number"),
        "constant": (write(folder / "flat.nrrd", np.zeros((9, 9, 9), np.int16)), strokes, [], "same value"),
        "2-D": (write(folder / "flat2d.nrrd", np.arange(64, dtype=np.int16).reshape(8, 8)), strokes, [], "2"),
        "4-D": (write(folder / "time.nrrd", np.arange(4096, dtype=np.int16).reshape(8, 8, 8, 8)), strokes, [], "four"),
        "colour": (write(folder / "rgb.nrrd", np.zeros((8, 8, 8, 3), np.uint8), 3), strokes, [], "olour"),
        "one slice": (write(folder / "one.nrrd", np.arange(64, dtype=np.int16).reshape(1, 8, 8)), strokes, [], "slice"),
        "no annotation": (image, map_of("none.nrrd", labels), [], ""),
        "no background": (image, map_of("nobg.nrrd", no_background), [], "No background"),
        "empty segments": (image, strokes_of("unpainted.seg.nrrd", background_alone), [], "No segment has a painted voxel."),
        "other grid": (image, map_of("moved.nrrd", phantom.annotation, ijk_to_lps=tuple(map(tuple, shifted))), [], "origin"),
        "unknown background": (image, strokes, ["--background", "nobody"], "nobody"),
        "no output folder": (image, strokes, ["-o", str(folder / "nowhere" / "d.nrrd")], "nowhere"),
        "unknown suffix": (image, strokes, ["-o", str(folder / "d.xyz")], "xyz"),
        "output is the input": (image, strokes, ["-o", str(strokes)], "overwritten"),
        "slice outside": (image, strokes, ["--complete-slices", "axial:999"], "outside"),
        "slices not understood": (image, strokes, ["--complete-slices", "axial:x"], "not understood"),
        "wrong orientation": (image, strokes, ["--complete-slices", "oblique:1"], "oblique"),
        "time budget": (image, strokes, ["--time-budget", "-3"], "time_budget_s"),
        "model of the future": (image, strokes, ["--start-from", str(folder / "future.pt")], "version 99"),
        "broken model": (image, strokes, ["--start-from", str(folder / "broken.pt")], "damaged"),
        "model with code": (image, strokes, ["--start-from", str(folder / "evil.pt")], "code"),
        "foreign job folder": (image, strokes, ["--job", str(folder / "foreign")], "holds no job"),
    }


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil-was-here",))


CASES = [
    "missing image", "empty file", "foreign file", "truncated file", "folder without DICOM", "not a number", "constant",
    "2-D", "4-D", "colour", "one slice", "no annotation", "no background", "empty segments",
    "other grid", "unknown background", "no output folder", "unknown suffix", "output is the input", "slice outside", "slices not understood",
    "wrong orientation", "time budget", "model of the future", "broken model", "model with code", "foreign job folder",
]  # fmt: skip


START_A_WORKER = {"no background", "empty segments", "model of the future", "broken model", "model with code"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in START_A_WORKER else n for n in CASES])
def test_bad_input_is_one_clear_sentence_exit_code_2_and_nothing_written(name, inputs, phantom, capfd, monkeypatch):
    """In this process, which need not start; those that come to opening the job still start a worker."""
    image, annotation, options, words = _broken_inputs(inputs, phantom)[name]
    before = {p: p.read_bytes() for p in inputs.rglob("*") if p.is_file()}
    monkeypatch.chdir(inputs)
    assert run("segment", image, annotation, "-o", inputs / "d.seg.nrrd", *QUICK, *options) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    message = [line for line in said.splitlines() if line.startswith("sparseseg: ")]
    assert len(message) == 1, said
    assert words in message[0]
    assert {p: p.read_bytes() for p in inputs.rglob("*") if p.is_file()} == before


def test_the_table_of_bad_inputs_is_complete(inputs, phantom):
    assert sorted(CASES) == sorted(_broken_inputs(inputs, phantom))


@pytest.fixture
def second(inputs, phantom):
    """Another volume, half as fine in the plane."""
    geometry = Geometry.from_axes((24, 20, 18), (2.0, 2.0, 1.5), phantom.geometry.origin_lps_mm)
    files.write_volume(inputs / "t2.nrrd", phantom.image[:, ::2, ::2].astype(np.float32).copy(), geometry)
    return inputs / "t2.nrrd"


@pytest.mark.slow
def test_several_volumes_are_segmented_together_and_so_is_another_patients(inputs, second, capsys):
    image, model = inputs / "image.nrrd", inputs / "model.pt"
    asked = [image, inputs / "strokes.seg.nrrd", "--channel", second, "-o", inputs / "r.nrrd", "--save-model", model, "--job", inputs / "job", *QUICK]
    assert run("segment", *asked, "--report", inputs / "r.html") == 0
    assert "warning: t2.nrrd lies on another grid; it was resampled to the image's (linear)." in capsys.readouterr().err
    with Job.open(inputs / "job") as job:
        assert job.channels().shape == (2, 24, 40, 36) and job.channels().dtype == np.float32
        assert job.record.channels == ("image.nrrd", "t2.nrrd")
    assert "image.nrrd, t2.nrrd; pictures show the first" in (inputs / "r.html").read_text(encoding="utf-8")
    trained = model.stat().st_mtime_ns
    assert run("segment", *asked) == 0, "the same inputs: the job goes on"
    assert json.loads((inputs / "job" / "report.json").read_text())["steps"] == 12 and model.stat().st_mtime_ns > trained
    assert run("predict", model, image, "--channel", second, "-o", inputs / "p.nrrd") == 0
    assert run("predict", model, image, "-o", inputs / "q.nrrd") == 2
    assert "The model was trained on 2 channels, the image has 1 channel. Give the same volumes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--channel", "t2.nrrd"] * 4, "--channel was given 4 times. An image has 4 channels at most, with IMAGE."),
        (["--channel", "no.nrrd"], "There is no file"),
        (["--channel", "t2.nrrd", "--report", "t2.nrrd"], "t2.nrrd is an input; it would be overwritten."),
    ],
)
def test_channels_that_cannot_be_are_refused(inputs, second, capsys, monkeypatch, options, words):
    monkeypatch.chdir(inputs)
    assert run("segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "r.nrrd", *options) == 2
    assert words in capsys.readouterr().err
    assert not (inputs / "r.nrrd").exists()


def test_a_bad_input_with_json_is_an_error_event(inputs):
    done = sparseseg("segment", inputs / "no.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "d.nrrd", "--json")
    assert done.returncode == 2
    event = decode_event(done.stdout)
    assert isinstance(event, Error)
    assert (event.code, event.fatal) == ("input", True)


@pytest.mark.slow
def test_a_device_that_is_not_there_is_exit_code_3(inputs):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    done = sparseseg("segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "d.nrrd", "--device", "cuda")
    assert done.returncode == 3
    assert "CUDA" in done.stderr


@pytest.mark.parametrize(
    ("code", "exit_code"), [("stuck", 4), ("worker", 4), ("job", 2), ("protocol", 2), ("device", 3), ("internal", 1), ("busy", 1)]
)
def test_the_workers_errors_have_the_documented_exit_codes(code, exit_code):
    assert cli._as_exception(Error("t", 1, code, "sentence", "advice")).exit_code == exit_code


def test_a_locked_job_is_refused(inputs, phantom):
    from sparseseg.contract.job import Job, JobRecord
    from sparseseg.contract.settings import Settings

    with Job.create(inputs / "job", phantom.image, phantom.annotation, JobRecord(phantom.geometry, phantom.classes, Settings())):
        done = sparseseg("segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "d.nrrd", "--job", inputs / "job")
    assert done.returncode == 2
    assert f"process {os.getpid()}" in done.stderr


@pytest.mark.slow
def test_overlapping_strokes_are_counted_in_a_warning(inputs, phantom):
    path = inputs / "overlap.seg.nrrd"
    masks = [phantom.annotation == 1, phantom.annotation == 2, phantom.annotation == 3]
    masks[1] |= masks[2] & (np.arange(phantom.image.shape[1])[None, :, None] < 20)
    disputed = int((masks[1] & masks[2]).sum())
    assert disputed
    image = sitk.GetImageFromArray(np.stack(masks, -1).astype(np.uint8), isVector=True)
    image.CopyInformation(sitk.ReadImage(str(inputs / "image.nrrd")))
    for n, (segment, name) in enumerate((("bg", "Background"), ("a", "liver"), ("b", "spleen"))):
        for key, value in {"ID": segment, "Name": name, "Color": "0.5 0.5 0.5", "LabelValue": "1", "Layer": str(n), "Tags": "|"}.items():
            image.SetMetaData(f"Segment{n}_{key}", value)
    sitk.WriteImage(image, str(path))
    done = sparseseg("segment", inputs / "image.nrrd", path, "-o", inputs / "d.nrrd", *QUICK)
    assert done.returncode == 0, done.stderr
    assert f"{disputed} voxels are painted in both" in done.stderr


@pytest.mark.slow
def test_unpainted_segments_are_named_in_a_warning_and_listed_in_the_result(inputs, phantom, capsys):
    names = ["stomach", "Léber", "spleen", "dark"]
    spread = np.array([0, 1, 3, 5], np.uint8)[phantom.annotation]
    files.write_annotation(inputs / "four.seg.nrrd", spread, phantom.geometry, ClassTable.numbered(4, names))
    given = [inputs / "image.nrrd", inputs / "four.seg.nrrd", "-o", inputs / "dense.seg.nrrd", "--report", inputs / "report.html", *QUICK]
    assert run("segment", *given) == 0
    said = capsys.readouterr().err
    warning = "Nothing is painted in stomach, spleen: they stay empty. Paint them on a slice, and they join in."
    assert said.count("warning: ") == said.count(f"warning: {warning}") == 1
    assert "spleen: 0 voxels" in said and "stomach: estimated" not in said
    result = files.read_annotation(inputs / "dense.seg.nrrd", phantom.geometry)
    assert result.classes.names == names
    assert set(np.unique(result.annotation)) == {0, 3, 5}
    page = (inputs / "report.html").read_text(encoding="utf-8")
    assert all(f"{name}</th>" in page for name in names)
    assert run("segment", *given, "--json") == 0
    (event,) = [e for e in map(decode_event, capsys.readouterr().out.splitlines()) if isinstance(e, Warning)]
    assert (event.code, f"{event.sentence} {event.advice}") == ("unpainted", warning)


@pytest.mark.slow
def test_a_gap_in_a_label_map_is_said_and_closed(inputs, phantom, capsys):
    files.write_volume(inputs / "gap.nrrd", np.where(phantom.annotation == 2, 0, phantom.annotation).astype(np.uint8), phantom.geometry)
    assert run("segment", inputs / "image.nrrd", inputs / "gap.nrrd", "-o", inputs / "d.nrrd", *QUICK) == 0
    expected = "gap.nrrd: 0: unlabelled, 1: background, 3: segment 2; in a label map as result they are 1 to 1, in this order"
    assert expected in capsys.readouterr().err
    assert set(np.unique(files.read_volume(inputs / "d.nrrd").array)) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 16, 16), (6, 64, 60)], ids=["tiny", "anisotropic"])
def test_small_and_anisotropic_volumes_work(shape, tmp_path):
    small = two_organs(shape)
    spacing = (0.4, 0.4, 10.0) if shape[0] == 6 else (1, 1, 1)
    geometry = replace(small.geometry, ijk_to_lps=tuple(map(tuple, np.diag([*spacing, 1.0]))))
    files.write_volume(tmp_path / "i.nrrd", small.image, geometry)
    files.write_volume(tmp_path / "a.nrrd", small.annotation, geometry)
    start = time.monotonic()
    done = sparseseg("segment", tmp_path / "i.nrrd", tmp_path / "a.nrrd", "-o", tmp_path / "d.nrrd", *QUICK)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 120


# ---------------------------------------------------------------- hints


def hints_of(phantom, **changes):
    """For each organ its region and a point inside, as a file has them; RAS."""
    segments = {}
    for value, name in ((1, "bright"), (2, "dark")):
        places, matrix = np.argwhere(phantom.truth == value)[:, ::-1], phantom.geometry.ijk_to_ras()
        low, high, middle = ((matrix @ [*at, 1])[:3] for at in (places.min(0), places.max(0), places.mean(0).round()))
        roi = {"center": ((low + high) / 2).tolist(), "size": (np.abs(high - low) + 2).tolist()}
        segments[name] = {"roi": roi, "points": [middle.tolist()], **changes}
    return {"hints_version": 1, "segments": segments}


@pytest.mark.slow
def test_hints_alone_bring_their_own_segments(inputs, phantom, capsys):
    (inputs / "hints.json").write_text(json.dumps(hints_of(phantom, one_piece=True)))
    given = [inputs / "image.nrrd", "--hints", inputs / "hints.json", "-o", inputs / "dense.seg.nrrd", "--job", inputs / "job", *QUICK]
    assert run("segment", *given) == 0
    result = files.read_annotation(inputs / "dense.seg.nrrd", phantom.geometry)
    assert result.classes.names == ["bright", "dark"]
    dense = np.maximum(result.annotation, 1) - 1
    assert all(2 * ((dense == v) & (phantom.truth == v)).sum() / ((dense == v).sum() + (phantom.truth == v).sum()) > 0.9 for v in (1, 2))
    assert "labelled by hints alone" in capsys.readouterr().err
    record = json.loads((inputs / "job" / "job.json").read_text())
    assert record["hints"]["segments"]["Segment_1"]["one_piece"] is True
    assert run("segment", *given) == 0  # goes on
    assert (inputs / "job" / "events.jsonl").read_text().count('"event":"result"') == 2  # in the same job
    fewer = hints_of(phantom)
    fewer["segments"]["spleen"] = {"roi": fewer["segments"]["dark"]["roi"]}  # without a point
    (inputs / "hints.json").write_text(json.dumps(fewer))
    assert run("segment", *given) == 0  # other hints: another job
    assert (inputs / "job" / "events.jsonl").read_text().count('"event":"result"') == 1
    assert "warning: Nothing is painted in spleen: it stays empty." in capsys.readouterr().err
    assert files.read_annotation(inputs / "dense.seg.nrrd", phantom.geometry).classes.names == ["bright", "dark", "spleen"]


@pytest.mark.slow
def test_hints_beside_strokes_are_held_and_contradictions_named(inputs, phantom, capsys):
    data = hints_of(phantom)
    data["segments"] = {"Léber": {"roi": data["segments"]["bright"]["roi"]}}
    data["segments"]["Léber"]["roi"]["size"][2] -= 12  # cuts slices off that are painted
    (inputs / "hints.json").write_text(json.dumps(data))
    assert run("segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "--hints", inputs / "hints.json", "-o", inputs / "d.nrrd", *QUICK) == 0
    assert "painted as Léber lie outside of its ROI; the paint stands." in capsys.readouterr().err
    dense = files.read_volume(inputs / "d.nrrd").array
    assert (dense[phantom.annotation == 2] == 1).all()
    assert not (dense[2:6] == 1).any() and (phantom.truth[5] == 1).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segments": {"kidney": {}}}, "no such segment. There are Léber, dark"),
        ({"segments": {"dark": {"one_peace": True}}}, "dark has an unknown key 'one_peace'"),
        ({"coordinates": "LPS"}, "lies outside of the volume|holds no voxel"),
    ],
)
def test_a_hint_that_is_wrong_is_named_and_nothing_is_written(inputs, phantom, capsys, change, words):
    data = hints_of(phantom)
    data["segments"] = {"Léber": data["segments"]["bright"]}
    (inputs / "hints.json").write_text(json.dumps(data | change))
    given = [inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "--hints", inputs / "hints.json", "-o", inputs / "d.nrrd"]
    assert run("segment", *given) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (inputs / "d.nrrd").exists()


def test_there_must_be_strokes_or_hints_and_hints_are_not_overwritten(inputs, phantom, capsys):
    assert run("segment", inputs / "image.nrrd", "-o", inputs / "d.nrrd") == 2
    assert "neither an annotation nor --hints" in capsys.readouterr().err
    (inputs / "hints.json").write_text(json.dumps(hints_of(phantom)))
    alone = ["segment", inputs / "image.nrrd", "--hints", inputs / "hints.json", "-o", inputs / "d.nrrd"]
    assert run(*alone, "--complete-slices", "axial:3") == 2
    assert "are about an annotation" in capsys.readouterr().err
    assert run(*alone, "--report", inputs / "hints.json") == 2
    assert "is an input; it would be overwritten" in capsys.readouterr().err
