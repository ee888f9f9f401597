"""Hints through a real worker: a job that carries them, a correction against them, and a worker that takes the job up again."""

import json

import numpy as np
import pytest

from phantoms import make_job
from sparseseg.contract.hints import Hints, Point, Roi, SegmentHints
from sparseseg.contract.job import Job
from sparseseg.contract.protocol import Close, Error, Open, Preview, Result, Train, Update, Warning


def region(phantom, value):
    """The box of a segment and a millimetre more, and a point in its middle."""
    places, matrix = np.argwhere(phantom.truth == value)[:, ::-1], phantom.geometry.matrix
    low, high, middle = ((matrix @ [*at, 1])[:3] for at in (places.min(0), places.max(0), places.mean(0).round()))
    roi = Roi(tuple((low + high) / 2), tuple(high - low + 2))
    return SegmentHints(roi, (Point(tuple(middle)),), one_piece=True)


@pytest.fixture
def hinted_job(tmp_path, phantom):
    """Nothing painted: regions and points alone."""
    hints = Hints((region(phantom, 1), region(phantom, 2)))
    return make_job(tmp_path / "job", phantom, None, np.zeros_like(phantom.annotation), hints)


@pytest.mark.slow
def test_a_job_of_hints_alone_is_trained_corrected_and_taken_up_again(talk, start_talk, hinted_job, phantom):
    ready = talk.open(hinted_job)
    assert "are labelled by hints alone and weigh less" in ready.summary
    talk.client.send(Train("t"))
    result = talk.until(Result, id="t")
    dense = np.load(result.file)
    assert [2 * ((dense == v) & (phantom.truth == v)).sum() / ((dense == v).sum() + (phantom.truth == v).sum()) > 0.9 for v in (1, 2)] == [True, True]
    assert not [e for e in talk.events if isinstance(e, (Warning, Error))]

    np.save(hinted_job / "annotation-0002.npy", np.full((1, 1, 4), 2, np.uint8))
    talk.client.send(Update("u", "annotation-0002.npy", 2, [], [[2, 3], [1, 2], [1, 5]]))  # far outside of its region
    preview = talk.until(Preview, id="u")
    (warning,) = [e for e in talk.events if isinstance(e, Warning)]
    assert (warning.id, warning.code, warning.revision) == ("u", "hints", 2)
    assert warning.sentence == "4 voxels painted as bright lie outside of its ROI; the paint stands."
    box = tuple(slice(*edge) for edge in preview.box)
    shown = dense.copy()
    shown[box] = np.load(preview.file)
    assert (shown[2, 1, 1:5] == 1).all()
    talk.client.send(Close("c"))

    again = start_talk()
    again.open(hinted_job)
    again.client.send(Train("t"))
    result = again.until(Result, id="t")
    assert [e.code for e in again.events if isinstance(e, Warning)] == ["hints", "hints"]  # the paint, and that it is a second piece
    said = json.loads((hinted_job / "report.json").read_text())["hints"]
    assert said[0] == warning.sentence
    assert said[1] == "bright is said to be one piece, but is annotated in 2 that do not touch; all of these are kept."
    assert (np.load(result.file)[2, 1, 1:5] == 1).all()


def test_hints_in_a_job_are_checked_when_it_is_opened(talk, hinted_job):
    record = json.loads((hinted_job / "job.json").read_text())
    record["hints"]["segments"]["Segment_1"]["volume_ml"] = [3, 1]
    (hinted_job / "job.json").write_text(json.dumps(record))
    talk.client.send(Open("open", str(hinted_job), "cpu"))
    error = talk.until(Error, id="open")
    assert error.code == "job"
    assert "Segment_1, volume_ml has its least, 3, above its most, 1" in error.sentence


def test_a_record_without_hints_is_as_it_was_before_there_were_any(job):
    assert "hints" not in json.loads((job / "job.json").read_text())
    with Job.open(job) as opened:
        assert opened.record.hints is None
