"""A real worker tells of a mistake in the annotation: in a run, when idle, and no longer once it is corrected."""

import json

import numpy as np
import pytest

from phantoms import make_job
from sparseseg.contract.protocol import Check, Preview, Ready, Result, Train, Update

pytestmark = pytest.mark.slow
FORGOTTEN_ON = 12  # the middle one of the phantom's three slices
SLICES = [[0, 6], [0, 12], [0, 18]]


def forgetful(phantom):
    """The phantom's annotation, but for the bright organ on one slice."""
    annotation = phantom.annotation.copy()
    annotation[FORGOTTEN_ON][phantom.truth[FORGOTTEN_ON] == 1] = 1
    return annotation


def send(talk, folder, annotation, revision, box=()):
    name = f"annotation-{revision:04d}.npy"
    np.save(folder / name, annotation[tuple(slice(*edges) for edges in box)])
    talk.client.send(Update(f"u{revision}", name, revision, SLICES, [list(edges) for edges in box]))


def checks(talk):
    return [event for event in talk.events if isinstance(event, Check)]


def test_a_run_tells_of_a_forgotten_structure_and_the_correction_takes_it_back(talk, tmp_path, phantom):
    folder = make_job(tmp_path / "job", phantom, annotation=forgetful(phantom))
    talk.open(folder)
    talk.client.send(Train("t"))
    result = talk.until(Result, id="t")
    (told,) = checks(talk)
    assert (told.id, told.revision) == ("t", 1)
    assert talk.events.index(told) > max(n for n, e in enumerate(talk.events) if isinstance(e, Preview) and e.source == "growing")
    assert result.places == told.places == json.loads((folder / "report.json").read_text())["check"]
    (place,) = told.places
    i, j, k = place["centre_ijk"]
    assert (place["axis"], place["index"], place["painted"], place["believed"]) == (0, FORGOTTEN_ON, "", "Segment_1")
    assert phantom.truth[k, j, i] == 1
    assert abs(place["voxels"] - (phantom.truth[FORGOTTEN_ON] == 1).sum()) < 0.3 * place["voxels"]
    assert "axial slice 12" in place["sentence"]
    assert "bright" in place["sentence"]

    shape = phantom.truth.shape
    send(talk, folder, phantom.annotation, 2, ((12, 13), (0, shape[1]), (0, shape[2])))
    assert talk.until(Check).places == []


def test_a_mistake_that_is_made_later_is_told_by_the_idle_worker(talk, tmp_path, phantom):
    folder = make_job(tmp_path / "job", phantom)
    talk.open(folder)
    talk.client.send(Train("t"))
    result = talk.until(Result, id="t")
    assert result.places == []
    assert checks(talk) == []
    send(talk, folder, forgetful(phantom), 2)
    told = talk.until(Check)
    assert (told.id, told.revision) == ("", 2)
    assert [place["index"] for place in told.places] == [FORGOTTEN_ON]
    answered = [event for event in talk.events if isinstance(event, Preview) and event.id == "u2"]
    assert [event.source for event in answered] == ["growing", "prior"]


def test_an_annotation_without_mistakes_is_not_spoken_of(talk, tmp_path, phantom):
    folder = make_job(tmp_path / "job", phantom)
    talk.open(folder)
    talk.client.send(Train("t"))
    assert talk.until(Result, id="t").places == []
    send(talk, folder, phantom.annotation, 2)
    talk.until(Preview, id="u2")
    talk.client.send(Train("again"))  # waits for nothing: what is idle work is left
    assert talk.until(Result, id="again").places == []
    assert checks(talk) == []
    assert isinstance(talk.events[0], Ready)
