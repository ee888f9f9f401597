"""The accuracy benchmark: scores against brute force, peers on a tiny phantom, the table's flags, simulated clinicians, quick runs."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import accuracy
import methods
import peers
import plots
import scores
import simulate
import tables

from cases import Case
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry

QUICK = methods.Options(device="cpu", budget_s=20, quick=True)
SPACING = (2.0, 1.0, 0.5)


def blobs(seed, shape=(5, 6, 7)):
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.3, rng.random(shape) < 0.3, rng.random(shape) < 0.7


def brute_surface(mask):
    def outside(place):
        return any(n < 0 or n >= s for n, s in zip(place, mask.shape, strict=True)) or not mask[tuple(place)]

    steps = [step for axis in np.eye(3, dtype=int) for step in (axis, -axis)]
    return [place for place in np.argwhere(mask) if any(outside(place + step) for step in steps)]


def brute_scores(a, b, counted, spacing):
    sides = [(brute_surface(a), brute_surface(b)), (brute_surface(b), brute_surface(a))]
    voxels, mm = [], []
    for mine, other in sides:
        here = [p for p in mine if counted[tuple(p)]]
        voxels += [min(np.linalg.norm(p - q) for q in other) for p in here]
        mm.append([min(np.linalg.norm((p - q) * spacing) for q in other) for p in here])
    return np.mean(np.array(voxels) <= 1), max(np.percentile(d, 95) for d in mm if d)


@pytest.mark.parametrize("seed", range(8))
def test_surface_scores_are_those_of_brute_force(seed):
    a, b, counted = blobs(seed)
    assert scores.surface_scores(a, b, counted, SPACING) == pytest.approx(brute_scores(a, b, counted, SPACING), abs=1e-4)


def test_scores_of_a_cube_moved_by_one_and_by_two_voxels():
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[3:8, 3:8, 3:8] = 1
    nothing = np.zeros_like(truth)
    one, two = (scores.scores(np.roll(truth, n, 2), truth, nothing, SPACING) for n in (1, 2))
    assert one["dice"]["mean"] == pytest.approx(0.8)
    assert one["surface_dice"]["mean"] == 1
    assert one["hd95_mm"]["mean"] == pytest.approx(0.5)
    assert two["surface_dice"]["mean"] < 1
    assert two["hd95_mm"]["mean"] == pytest.approx(1.0)


def test_annotated_voxels_do_not_count_and_the_annotation_stands():
    truth = np.zeros((4, 8, 8), np.uint8)
    truth[:, 2:6, 2:6] = 1
    result, annotation = truth.copy(), np.zeros_like(truth)
    result[1] = 0
    annotation[1] = truth[1] + 1
    found = scores.scores(result, truth, annotation, SPACING)
    assert [found[m]["mean"] for m in scores.METRICS] == [1, 1, 0]


def test_a_segment_that_is_lost_scores_nothing_and_one_in_neither_is_left_out():
    truth = np.zeros((4, 6, 6), np.uint8)
    truth[1:3, 2:4, 2:4] = 1
    truth[0, 0, 0] = 2
    annotation = np.where(truth == 2, 3, 0).astype(np.uint8)
    found = scores.scores(np.zeros_like(truth), truth, annotation, SPACING)
    assert found["dice"]["segments"] == [0, None]
    assert found["surface_dice"]["segments"] == [0, None]
    assert found["hd95_mm"]["segments"][0] == pytest.approx(np.linalg.norm([8, 6, 3]))
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "floor"), [("prior", 0.95), ("grow", 0.9), ("grow-region", 0.9), ("fill", 0.7), ("walker", 0.6)])
def test_each_peer_segments_the_phantom(method, floor):
    row = methods.run(method, methods.phantom_pairs()[0], QUICK)
    if row["status"] == "missing":
        pytest.skip(row["reason"])
    assert row["status"] == "ok", row
    assert row["dice"]["mean"] > floor
    assert row["seconds"] >= 0


@pytest.mark.slow
def test_nnunet_trains_a_step_on_the_phantom():
    row = methods.run("nnunet", methods.phantom_pairs()[0], QUICK)
    if row["status"] == "missing":
        pytest.skip(row["reason"])
    assert row["status"] == "ok", row
    assert len(row["dice"]["segments"]) == 2


@pytest.mark.slow
def test_ours_comes_with_previews_and_an_estimate():
    row = methods.run("sparseseg", methods.phantom_pairs()[0], QUICK)
    assert row["status"] == "ok", row
    assert row["dice"]["mean"] > 0.9
    assert row["previews"][0]["dice"] == row["first_preview_dice"]
    assert row["estimate_error"] == pytest.approx(abs(row["estimate"] - row["dice"]["mean"]))


@pytest.mark.parametrize(("method", "status"), [("missing", "missing"), ("broken", "failed")])
def test_a_peer_that_is_missing_or_dies_is_a_row_that_says_so(method, status):
    row = methods.run(method, methods.phantom_pairs()[0], QUICK)
    assert row["status"] == status
    assert row["reason"]
    assert f"{method}: {status}" in tables.reasons([row])


def test_filling_takes_no_strokes():
    row = methods.run("fill", methods.phantom_pairs()[1], QUICK)
    assert row["status"] == "not applicable"


@pytest.mark.slow
def test_a_job_that_the_worker_refuses_is_a_failed_row():
    pair = methods.phantom_pairs()[0]
    row = methods.run("sparseseg", pair.with_annotation(np.zeros_like(pair.annotation)), QUICK)
    assert row["status"] == "failed"
    assert row["reason"]


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_dice_is_that_of_all_scores(seed):
    rng = np.random.default_rng(seed)
    result, truth = rng.integers(0, 4, (5, 6, 7)).astype(np.uint8), rng.integers(0, 3, (5, 6, 7)).astype(np.uint8)  # one segment is in no truth
    annotation = np.where(rng.random(truth.shape) < 0.3, truth + 1, 0).astype(np.uint8)
    assert scores.mean_dice(result, truth, annotation) == scores.scores(result, truth, annotation, SPACING)["dice"]["mean"]


def rows_of(*values):
    """Rows of one case: (method, Dice) with an estimate of 0.8 for ours."""
    shared = {"case": "a", "protocol": "slices-3", "status": "ok", "seconds": 1.0, "peak_gb": 0.1, "estimate": 0.8, "estimate_error": 0.1}
    return [shared | {"method": method, "dice": {"mean": dice, "segments": [dice]}} for method, dice in values]


@pytest.mark.parametrize(("ours", "flagged"), [(0.894, True), (0.895, False), (0.95, False)])
def test_the_table_flags_what_lies_below_growing(ours, flagged):
    table = tables.dice_table(rows_of(("sparseseg", ours), ("grow", 0.9)))
    assert ("**below**" in table) == flagged
    assert f"{int(flagged)} below" in table.splitlines()[-1]
    assert f"{ours - 0.9:.3f}" in table


def test_a_mean_over_fewer_pairs_says_so():
    rows = rows_of(("grow", 0.9), ("fill", 0.5)) + [r | {"protocol": "strokes-3"} for r in rows_of(("grow", 0.7))]
    assert tables.metric_table(rows, "dice", 3).splitlines()[-1] == "| **mean** |  | 0.800 | 0.500 (of 1) |"


def test_the_stroke_is_a_thin_line_through_the_largest_wrong_spot():
    truth = np.zeros((5, 20, 30), np.uint8)
    truth[3, 4:13, 3:25] = 2
    result = np.zeros_like(truth)
    truth[1, 0:2, 0:2] = 1
    stroke, where = simulate.worst_stroke(result, truth, np.zeros_like(truth), [0])
    assert where == (0, 3)
    assert not stroke[:3].any() and not stroke[4:].any()
    assert set(np.unique(truth[stroke])) == {2}
    assert 14 <= stroke.sum() <= 24
    assert stroke[3].sum(0).max() <= 4  # a line along it, at most leaning at its ends
    assert not simulate.worst_stroke(truth, truth, np.zeros_like(truth), [0, 1, 2])[0].any()


def test_slices_are_added_in_the_widest_gap():
    truth = np.zeros((21, 4, 4), np.uint8)
    truth[1:20, 1:3, 1:3] = 1
    annotation = np.zeros_like(truth)
    annotation[[1, 19]] = truth[[1, 19]] + 1
    assert simulate.widest_gap(truth, annotation) == (0, 10)


def phantom_case(names):
    pair = methods.phantom_pairs()[0]
    return replace(pair, case=replace(pair.case, classes=ClassTable.numbered(2, names)))


def test_segments_are_matched_by_name():
    pair = phantom_case(["liver", "spleen"])
    same = simulate.matched(pair, ClassTable.numbered(3, ["spleen", "stomach", "colon"]))
    assert same.case.classes.names == ["spleen", "liver"]
    assert np.array_equal(same.case.truth == 1, pair.case.truth == 2)
    assert np.array_equal(same.annotation == 2, pair.annotation == 3)
    assert np.array_equal(same.annotation == 1, pair.annotation == 1)


def test_a_turned_case_is_the_same_place_in_the_patient():
    shape = (6, 20, 30)
    image = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    geometry = Geometry.from_axes(shape, (0.5, 1.0, 2.0), (3, -4, 5))
    case = Case("a", image, (image % 3).astype(np.uint8), geometry, ClassTable.numbered(2))
    turned = simulate.reoriented(case, 0.1, (0, 2))
    k, j, i = 1, 2, 3
    place = turned.geometry.matrix @ (i, j, k, 1)
    old_i, old_j, old_k, _ = np.rint(np.linalg.inv(geometry.matrix) @ place).astype(int)
    assert turned.image[k, j, i] == image[old_k, old_j, old_i]
    assert turned.truth.shape == (4, 16, 24)


def test_the_first_time_at_a_level():
    points = [(1.0, 0.5), (2.0, 0.8), (3.0, 0.7)]
    assert simulate.reached(points, 0.75) == 2.0
    assert simulate.reached(points, 0.9) is None
    nothing, half = [(1.0, 0.5), (10.0, 0.8)], [(1.0, 0.5), (5.0, 0.7)]
    row = simulate.transfer_row("a -> b", nothing, half, [(1.0, 0.9), (4.0, 0.81)])
    assert (row["s from nothing"], row["s from the model"], row["as good"]) == (10.0, 4.0, "yes")
    assert simulate.transfer_row("a -> b", nothing, half, half)["as good"] == "no"


def test_a_case_folder_gives_its_protocols_and_generated_ones(tmp_path):
    pair = methods.phantom_pairs()[0]
    folder = tmp_path / "phantom"
    (folder / "annotations").mkdir(parents=True)
    files = methods.files
    files.write_volume(folder / "image.nii.gz", pair.case.image, pair.case.geometry)
    files.write_volume(folder / "truth.nii.gz", pair.case.truth, pair.case.geometry)
    files.write_volume(folder / "annotations" / "slices-3.nii.gz", pair.annotation, pair.case.geometry)
    (folder / "case.json").write_text(json.dumps({"name": "phantom", "modality": "MR", "labels": {"bright": 1, "dark": 2}}))
    assert methods.case_folders([tmp_path]) == [folder] == methods.case_folders([folder])
    read = methods.load_pair(folder, "slices-3")
    assert np.array_equal(read.annotation, pair.annotation) and read.modality == "MR"
    assert methods.load_pair(folder, "strokes-9") is None
    assert len(peers.complete_slices(methods.load_pair(folder, "even-4").annotation)) == 4
    with pytest.raises(SystemExit):
        methods.case_folders([folder / "annotations"])


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (pip install -e '.[bench]')")
    rows = rows_of(("sparseseg", 0.9), ("grow", 0.8))
    rows[0]["previews"] = [{"seconds": 0.5, "dice": 0.7}]
    plots.against_time(rows, tmp_path / "time.png")
    assert not plots.against_slices(rows, tmp_path / "slices.png")
    more = [r | {"protocol": "even-5"} for r in rows]
    assert plots.against_slices(rows + more, tmp_path / "slices.png")
    plots.lines([*"abcdef"], 6 * [{"sparseseg": [(1.0, 0.5), (2.0, 0.7)], "grow": []}], "seconds", tmp_path / "lines.png")  # two rows
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in ("time", "slices", "lines"))


@pytest.mark.slow
def test_the_quick_run_writes_tables_and_numbers(tmp_path, capsys):
    arguments = ["--quick", "--device", "cpu", "--out", str(tmp_path), "--methods", "sparseseg", "prior", "missing"]
    assert accuracy.main(arguments) == 0
    rows = json.loads((tmp_path / "accuracy.json").read_text())["rows"]
    assert [r["method"] for r in rows] == 2 * ["sparseseg", "prior", "missing"]
    assert "## Surface Dice" in (tmp_path / "accuracy.md").read_text()
    assert "no-such-package is not installed" in capsys.readouterr().out
    accuracy.main([*arguments, "--resume"])
    assert "sparseseg: Dice" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "rows"), [("corrections", 2), ("next-slice", 2), ("transfer", 1), ("beginnings", 2), ("hints", 8), ("check", 10), ("gpu", 2)]
)
def test_every_part_has_a_quick_run(part, rows, tmp_path):
    assert accuracy.main(["--quick", "--device", "cpu", f"--{part}", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / f"{part}.json").read_text())["rows"]
    assert len(found) == rows
    if part == "corrections":
        assert all(r["right in preview"] in (None, 1.0) for r in found)
