"""What leaves a session: previews of the whole or of a box, which files stay, results, and what the user is known to see."""

import numpy as np
import pytest

from phantoms import make_job, two_organs
from sparseseg.annotation.border import add_border_weight
from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.job import DENSE, NETWORK, PRIOR, REPORT, UNCERTAINTY, WEIGHTS, Job
from sparseseg.contract.settings import Settings
from sparseseg.session.publisher import Publisher

BOX = (slice(2, 5), slice(0, 3), slice(10, 12))


class Host:
    """Reads each file when it is told of it, as a host does."""

    def __init__(self):
        self.told, self.seen = [], None

    def preview(self, file, source, step, revision, box):
        part = np.load(file)
        if box is None:
            self.seen = part
        else:
            self.seen[box] = part
        self.told.append((file, source, step, revision, box))


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def job(tmp_path):
    with Job.open(make_job(tmp_path / "job", two_organs())) as opened:
        yield opened


@pytest.fixture
def publisher(job, host):
    return Publisher(job, host)


def full(job, value):
    return np.full(job.record.geometry.shape_kji, value, np.uint8)


def previews(job):
    return sorted(p.name for p in job.folder.glob("preview-*"))


def test_the_host_sees_what_the_publisher_remembers(publisher, host, job):
    rng = np.random.default_rng(0)
    publisher.show(full(job, 1), "growing", 0)
    for n in range(20):
        first = rng.integers(0, job.record.geometry.shape_kji)
        box = tuple(slice(int(a), int(rng.integers(a + 1, n + 1))) for a, n in zip(first, job.record.geometry.shape_kji, strict=True))
        publisher.show(np.full([s.stop - s.start for s in box], n, np.uint8), "prior", n, box)
        assert np.array_equal(host.seen, publisher.shown)
    publisher.show(full(job, 2), "network", 30)
    assert np.array_equal(host.seen, publisher.shown)
    assert (publisher.shown == 2).all()


def test_every_preview_says_what_it_is(publisher, host, job):
    publisher.show(full(job, 1), "growing", 0)
    publisher.show(np.zeros((3, 3, 2), np.uint8), "prior", 7, BOX)
    assert [t[1:] for t in host.told] == [("growing", 0, 1, None), ("prior", 7, 1, BOX)]
    assert np.load(host.told[1][0]).shape == (3, 3, 2)
    assert len({t[0] for t in host.told}) == 2


def test_a_box_alone_is_nothing_that_could_be_shown(publisher, job):
    with pytest.raises(ValueError, match="preview of the whole"):
        publisher.show(np.zeros((3, 3, 2), np.uint8), "growing", 0, BOX)
    assert previews(job) == []


def test_arrays_may_be_changed_after_they_were_shown(publisher, host, job):
    labels, part = full(job, 1), np.full((3, 3, 2), 2, np.uint8)
    publisher.show(labels, "growing", 0)
    labels[:] = 9
    publisher.show(part, "growing", 0, BOX)
    part[:] = 9
    assert set(np.unique(publisher.shown)) == {1, 2}
    assert np.load(host.told[0][0]).max() == 1


def test_the_last_two_whole_previews_stay_with_the_boxes_after_the_first(publisher, host, job):
    def show(kind):
        if kind == "whole":
            publisher.show(full(job, 1), "prior", 0)
        else:
            publisher.show(np.zeros((3, 3, 2), np.uint8), "prior", 0, BOX)

    kinds = ["whole", "box", "box", "whole", "box", "whole", "whole", "box"]
    kept = [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [3, 4, 5], [5, 6], [5, 6, 7]]
    for kind, expected in zip(kinds, kept, strict=True):
        show(kind)
        assert previews(job) == sorted(host.told[n][0].name for n in expected)


def test_a_result_is_what_the_user_sees_from_then_on(publisher, host, job):
    dense, uncertainty = full(job, 2), full(job, 7)
    result, uncertain = publisher.result(dense, uncertainty)
    assert (result.name, uncertain.name) == (DENSE, UNCERTAINTY)
    assert np.array_equal(np.load(result), dense) and np.array_equal(np.load(uncertain), uncertainty)
    host.seen = np.load(result)
    dense[:] = 0
    assert (publisher.shown == 2).all()
    publisher.show(np.zeros((3, 3, 2), np.uint8), "prior", 0, BOX)  # a box on top of a result
    assert np.array_equal(host.seen, publisher.shown)
    assert (publisher.shown[BOX] == 0).all()
    assert publisher.shown.sum() == 2 * (publisher.shown.size - 18)


@pytest.mark.parametrize("border", [0.0, 5.0])
def test_the_weights_are_written_as_the_annotation_has_them(publisher, job, border):
    record = job.record
    annotation = build_annotation(job.annotation(), record.classes, Settings())
    if border:
        annotation = add_border_weight(annotation, record.geometry.spacing_kji_mm, border, 2)
    prior = full(job, 1)
    trust = np.full(prior.shape, 255, np.uint8)
    half = tuple(at[:1] for at in np.nonzero(annotation.labelled))
    trust[half] = 128
    publisher.inputs(annotation, Belief(prior, trust))
    written = np.load(job.path(WEIGHTS))
    assert written.dtype == np.float32
    weights = annotation.weights
    weights[half] -= (weights[half] - (0 if annotation.border is None else annotation.border[half])) * np.float32(127 / 255)
    np.testing.assert_allclose(written, weights, rtol=1e-5)
    assert np.array_equal(written == 0, weights == 0)


def test_what_a_voice_says_is_written_whole_or_plane_by_plane(publisher, job):
    labels = np.arange(full(job, 0).size, dtype=np.uint8).reshape(job.record.geometry.shape_kji)
    for name, given in ((PRIOR, labels), (NETWORK, (plane for plane in labels))):
        publisher.voice(name, given, labels.shape)
        assert np.array_equal(np.load(job.path(name)), labels)


def test_the_report_is_a_file_of_the_job(publisher, job):
    assert publisher.report({"steps": 3, "nothing": float("nan")}) == job.path(REPORT)
    assert '"steps": 3' in job.path(REPORT).read_text()


def test_after_very_many_boxes_the_next_preview_is_whole_and_the_old_files_go(publisher, host, job, monkeypatch):
    monkeypatch.setattr("sparseseg.session.publisher._MOST_FILES", 5)
    publisher.show(np.zeros(job.record.geometry.shape_kji, np.uint8), "growing", 0)
    for n in range(20):
        publisher.show(np.full((1, 1, 1), n % 3, np.uint8), "prior", 0, (slice(n % 4, n % 4 + 1), slice(0, 1), slice(0, 1)))
    assert len(list(job.folder.glob("preview-*.npy"))) <= 2 * 7
    assert publisher.shown[:4, 0, 0].tolist() == [16 % 3, 17 % 3, 18 % 3, 19 % 3]
