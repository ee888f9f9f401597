"""When the annotation is looked at again, what is told to the host, and what an interruption leaves."""

from types import SimpleNamespace

import numpy as np
import pytest

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import Cancelled
from sparseseg.contract.geometry import Geometry
from sparseseg.session.checker import Checker

SHAPE = (12, 24, 24)
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[1:11, 6:18, 6:18] = 1
IMAGE = (100 * TRUTH + np.random.default_rng(0).normal(0, 5, SHAPE)).astype(np.int16)
ONE = ClassTable.numbered(1, ["liver"])


class Told:
    """A host that remembers the lists, and a job that has nothing but what places are told by."""

    def __init__(self):
        self.lists = []
        record = SimpleNamespace(classes=ONE, geometry=Geometry.from_axes(SHAPE, (1.0, 1.0, 1.0), (0, 0, 0)), revision=3)
        self.checker = Checker(SimpleNamespace(record=record), self)
        self.asked = 0

    def check(self, places, revision):
        self.lists.append(([place.index for place in places], revision))

    def believe(self, annotation, rest):
        self.asked += 1
        return Belief(TRUTH, np.full(SHAPE, 230, np.uint8))

    def look(self, annotation):
        self.checker.look(IMAGE, annotation, self.believe)


@pytest.fixture
def told():
    return Told()


def annotated(*forgotten):
    values = np.zeros(SHAPE, np.uint8)
    for k in (2, 5, 8):
        values[k] = 1 if k in forgotten else TRUTH[k] + 1
    return build_annotation(values, ONE)


def test_nothing_is_told_where_nothing_is_wrong(told):
    told.look(annotated())
    assert told.asked == 3
    assert told.lists == []


def test_each_revision_is_looked_at_once_and_told_when_the_list_is_another(told):
    told.look(annotated(5))
    told.look(annotated(5))
    assert told.asked == 3
    told.checker.annotated(annotated(5))
    told.look(annotated(5))
    assert told.asked == 6
    assert told.lists == [([5], 3)]


def test_a_correction_takes_its_place_off_the_list_at_once(told):
    told.look(annotated(5))
    told.checker.annotated(annotated())
    assert told.asked == 3
    assert told.lists == [([5], 3), ([], 3)]
    assert told.checker.places == []


def test_an_interruption_leaves_the_list_and_the_next_look_is_a_whole_one(told):
    told.look(annotated(5))
    told.checker.annotated(annotated(5))

    def interrupted(annotation, rest):
        raise Cancelled

    with pytest.raises(Cancelled):
        told.checker.look(IMAGE, annotated(5), interrupted)
    assert [place.index for place in told.checker.places] == [5]
    told.look(annotated())
    assert told.lists == [([5], 3), ([], 3)]
