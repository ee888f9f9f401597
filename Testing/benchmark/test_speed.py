"""The benchmark of speed and of the voices alone: boxes put together as a host does, strokes and scores by hand, quick runs."""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import accuracy
import growcut
import methods
import peers
import product
import scores
import speed
import voices

from cases import score
from sparseseg.contract.box import box_of
from sparseseg.contract.protocol import Error, Preview, Progress, Result


@pytest.fixture
def host(tmp_path):
    """A product without a worker, and show(labels, box) that sends it a preview."""
    without = object.__new__(product.Product)
    without.dense, without._copies, without.training, numbers = None, True, False, iter(range(99))
    shown = []
    keep = without.keep(shown, 0.0)

    def show(labels, box=None, source="prior"):
        file = tmp_path / f"{next(numbers)}.npy"
        np.save(file, labels)
        keep(Preview("train", 1, str(file), source, 0, 0.0, [] if box is None else [[s.start, s.stop] for s in box]))
        return shown[-1]

    return without, show


def test_boxes_are_put_into_what_the_user_sees(host):
    without, show = host
    first = show(np.zeros((3, 4, 5), np.uint8), source="growing")
    box = (slice(1, 3), slice(0, 2), slice(4, 5))
    second = show(np.ones((2, 2, 1), np.uint8), box)
    assert (first.box, second.box) == (None, box)
    assert first.dense.sum() == 0  # a copy: what was seen then
    assert second.dense.sum() == 4 and second.dense[box].all()
    assert np.array_equal(without.dense, second.dense)


def test_without_copies_the_array_itself_is_given(host):
    without, show = host
    without._copies = False
    assert show(np.zeros((3, 4, 5), np.uint8)).dense is without.dense


def test_strokes_correct_the_worst_place_and_are_remembered():
    truth = np.zeros((6, 20, 20), np.uint8)
    truth[:, 5:15, 5:15] = 1
    annotation = np.zeros_like(truth)
    annotation[0] = truth[0] + 1
    wrong = truth.copy()
    wrong[3, 6:14, 6:14] = 0
    strokes = speed.Strokes(truth, annotation)
    box, here = strokes.correct(wrong)
    assert box[0] == slice(3, 4)
    assert (strokes.annotation[box][here] == 2).all()
    ((at, value),) = strokes.made
    assert set(value) == {2} and len(at) == here.sum()
    assert box_of(strokes.annotation > np.where(np.arange(6)[:, None, None] == 0, 9, 0)) == box
    box, here = strokes.correct(truth)  # where all is right a line is drawn all the same
    assert here.sum() >= 1 and len(strokes.made) == 2
    again = np.where(np.arange(6)[:, None, None] == 0, truth + 1, 0).astype(np.uint8)
    for at, value in strokes.made:
        again.reshape(-1)[at] = value
    assert np.array_equal(again, strokes.annotation)


@pytest.mark.parametrize("seed", range(5))
def test_dice_of_painted_segments_is_that_of_all_but_those_without_strokes(seed):
    rng = np.random.default_rng(seed)
    result, truth = (rng.integers(0, 4, (5, 6, 7)).astype(np.uint8) for _ in range(2))
    annotation = np.where(rng.random(truth.shape) < 0.3, truth + 1, 0).astype(np.uint8)
    annotation[annotation == 3] = 0  # segment 2 is painted nowhere
    found, every = scores.painted_dice(result, truth, annotation), score(result, truth, annotation)
    assert list(found) == [1, 3]
    assert [*found.values()] == pytest.approx([every[0], every[2]])


def test_dice_of_what_nobody_has_is_left_out():
    nothing = np.zeros((2, 3, 4), np.uint8)
    annotation = nothing.copy()
    annotation[0] = 2
    assert scores.painted_dice(nothing, nothing, annotation) == {}
    assert speed.mean({}) is None


def numbers(**grow):
    found = speed.Numbers((100, 256, 256), {"first preview": 0.5}, {"first preview": 0.95, "refined preview": None})
    found.corrections["idle"] = [{"first": s, "refined": 2 * s, "right at first": 1.0, "right at last": 0.5} for s in (0.1, 0.2, 0.9)]
    found.cancel = {"growing": [0.1, 0.3], "saving": [None, None]}
    found.memory_gb = {"all of it": None}
    found.grow = grow
    return found


def test_the_table_has_a_column_for_each_size_and_one_for_growing():
    grow = {"first": 8.6, "corrections": [0.2, 0.1, 0.4], "dice first": 0.9, "dice last": 0.92, "peak_gb": 0.6}
    rows = {row[""]: row for row in speed.table([numbers(**grow)])}
    assert list(rows["first preview, s"]) == ["", "6.55 M", "Grow from seeds, 6.55 M"]
    assert rows["first preview, s"]["Grow from seeds, 6.55 M"] == "8.6"
    correction = rows["correction, idle, first answer, s: median (worst)"]
    assert [*correction.values()][1:] == ["0.2 (0.9)", "0.2 (0.4)"]
    assert rows["cancel, growing, s: worst"]["6.55 M"] == "0.3"
    assert rows["cancel, saving, s: worst"]["6.55 M"] == "done before"
    assert all("Grow" not in head for row in speed.table([numbers(missing="no slicer")]) for head in row)


def test_means_of_each_case_and_of_all():
    rows = [
        {"case": c, "annotation": "a", "grown": g, "refined": r, "grown s": 1.0, "refined s": 1.0} for c, g, r in (("x", 0.5, 0.6), ("y", 0.7, None))
    ]
    x, y, protocol, every = voices.with_mean(rows)[-4:]
    assert (protocol["annotation"], protocol["grown"], protocol["refined"]) == ("a", 0.6, 0.6)
    assert (x["grown"], y["grown"], every["grown"]) == (0.5, 0.7, 0.6)
    assert (x["refined"], y["refined"], every["refined"]) == (0.6, None, 0.6)


@pytest.mark.slow
def test_the_voices_alone_segment_the_phantom(tmp_path, capsys):
    assert accuracy.main(["--quick", "--device", "cpu", "--voices", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "voices.json").read_text())["rows"]
    assert [r["painted"] for r in rows] == [[1, 2], [1, 2]]
    assert all(r["grown"] > 0.95 and r["refined"] > 0.95 for r in rows)
    assert "| **all** |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_job_answers_an_update_of_a_box_twice():
    pair = methods.phantom_pairs()[0]
    options = methods.Options(device="cpu", budget_s=20, quick=True)
    with methods.tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job"
        with product.Product(job, pair.case, pair.annotation, options.settings(estimate=False, steps=1), "cpu") as running:
            running.train()
            annotation = pair.annotation.copy()
            box = (slice(8, 9), slice(0, 40), slice(10, 20))
            annotation[box] = pair.case.truth[box] + 1
            answer = running.update(annotation, box)
            same = running.update(annotation, box)
    assert answer.first.source == "growing" and answer.refined.source == "prior"
    for shown in (answer.first, answer.refined):
        assert shown.box is not None
        assert (shown.dense[box] == pair.case.truth[box]).all()
    assert answer.first.seconds <= answer.refined.seconds
    assert np.array_equal(same.refined.dense, answer.refined.dense)  # nothing new is answered, too


def test_what_comes_while_time_passes_is_taken_in(tmp_path):
    first, part, last = np.zeros((2, 3, 4), np.uint8), np.ones((1, 3, 4), np.uint8), np.full((2, 3, 4), 2, np.uint8)
    for name, array in (("first", first), ("part", part), ("last", last)):
        np.save(tmp_path / f"{name}.npy", array)
    whole = Preview("train", 1, str(tmp_path / "first.npy"), "prior", 0, 0.1)
    box = Preview("train", 1, str(tmp_path / "part.npy"), "network", 9, 0.2, [[1, 2], [0, 3], [0, 4]])
    end = Result("train", 1, str(tmp_path / "last.npy"), "", "", "", "budget", 9, 1.0, {}, {}, [])
    progress = Progress("train", 1, "training", 5, 0.1, None, 0.5, {}, {})
    waiting = [whole, progress, box]
    running = product.Product.__new__(product.Product)
    running.client = SimpleNamespace(wait=lambda _: waiting.pop(0) if waiting else None)
    running.watch, running.dense, running.training = lambda: None, None, True
    running.pass_time(0.0)
    assert running.training and [int(plane.max()) for plane in running.dense] == [0, 1]
    waiting.append(end)
    running.pass_time(0.0)
    assert not running.training and (running.dense == 2).all()
    waiting.append(Error("train", 1, "memory", "There was not enough memory.", "Crop."))
    with pytest.raises(product.Refused, match=r"not enough memory\. Crop"):
        running.pass_time(0.0)


@pytest.mark.slow
def test_growing_that_goes_on_is_growing_from_nothing():
    pair = methods.phantom_pairs()[0]
    case, first = pair.case, np.where(np.arange(24)[:, None, None] == 12, pair.annotation, 0).astype(np.uint8)
    more = np.where(np.arange(24)[:, None, None] == 18, pair.annotation, first).astype(np.uint8)
    more[12, 20, 18] = 2  # painted over
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        try:
            pool.submit(growcut.grown, case.image, first).result()
        except peers.Missing as error:
            pytest.skip(str(error))
        _, on = pool.submit(growcut.grown, None, more).result()
        _, anew = pool.submit(growcut.grown, case.image, more).result()
    assert (on == anew).mean() > 0.999
    assert (on[more > 0] == more[more > 0] - 1).all()


@pytest.mark.slow
def test_the_quick_run_measures_every_part(tmp_path, capsys):
    assert speed.main(["--quick", "--device", "cpu", "--json", str(tmp_path / "speed.json")]) == 0
    (found,) = json.loads((tmp_path / "speed.json").read_text())["sizes"]
    assert set(found["seconds"]) >= {"process to ready", "open to ready", "first preview", "refined preview"}
    assert all(len(found["corrections"][state]) == 2 for state in ("idle", "training"))
    assert all(row["right at first"] == row["right at last"] == 1 for rows in found["corrections"].values() for row in rows)
    phases = {"opening", "growing", "refining", "beginning to learn, the first time", "checking", "training", "predicting", "saving"}
    assert phases <= set(found["cancel"])
    assert "missing" in found["grow"] or len(found["grow"]["corrections"]) == 4
    assert "| first preview, s |" in capsys.readouterr().out
