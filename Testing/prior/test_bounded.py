"""Growing in a box that is known beforehand."""

import numpy as np

from sparseseg.contract.box import whole
from sparseseg.prior.grown import Grown

SHAPE = (30, 32, 34)
SPACING = (1.0, 1.0, 1.0)
BOUNDS = (slice(2, 28), slice(3, 29), slice(4, 30))


def bar():
    """A bright bar through the volume, labelled on one slice."""
    image = np.zeros(SHAPE, np.int16)
    image[:, 12:20, 12:20] = 100
    image += np.random.default_rng(0).integers(-5, 6, SHAPE).astype(np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[15, 12:20, 12:20] = 1
    labelled = np.zeros(SHAPE, bool)
    labelled[15] = True
    return image, labels, labelled


def grown(bounds, image, labels, labelled):
    return Grown.start(image, labels, labelled, SPACING, bounds=bounds)


def test_one_slice_grows_as_far_as_the_box_and_no_farther():
    image, labels, labelled = bar()
    free = Grown.start(image, labels, labelled, SPACING)
    bound = grown(BOUNDS, image, labels, labelled)
    assert (free.label[:, 14:18, 14:18] == 1).all()
    assert bound.plan.grid.region == BOUNDS
    assert (bound.label[3:27, 14:18, 14:18] == 1).all()
    assert not bound.label[:2].any()


def test_what_was_grown_from_one_slice_does_not_vanish_as_more_is_painted():
    """A second slice and a new segment: the region of a new start would be smaller."""
    image, labels, labelled = bar()
    voice = Grown.start(image, labels, labelled, SPACING)
    for k, label in ((10, 1), (12, 2)):
        labels[k, 12:20, 12:20], labelled[k] = label, True
        voice.update((slice(k, k + 1), slice(0, 32), slice(0, 34)), labels, labelled)
    assert voice.renewals == 1, "a new segment"
    assert voice.plan.grid.region[0] == slice(0, 30)
    assert Grown.start(image, labels, labelled, SPACING).plan.grid.region[0] == slice(2, 24)


def test_labels_outside_of_the_box_are_grown_too():
    image, labels, labelled = bar()
    bound = grown((slice(2, 10), *whole(SHAPE)[1:]), image, labels, labelled)
    region = bound.plan.grid.region
    assert region[0].start == 2 and region[0].stop > 15
    assert (bound.label[labelled] == labels[labelled]).all()


def test_an_update_is_what_beginning_anew_gives():
    image, labels, labelled = bar()
    bound = grown(BOUNDS, image, labels, labelled)
    box = (slice(20, 21), slice(12, 16), slice(12, 16))
    labels[box], labelled[box] = 0, True
    bound.update(box, labels, labelled)
    anew = Grown.start(image, labels, labelled, SPACING, plan=bound.plan, bounds=BOUNDS)
    assert (bound.label == anew.label).all() and (bound.confidence == anew.confidence).all()
    assert bound.renewals == 0
    outside = (slice(0, 1), slice(12, 16), slice(12, 16))
    labels[outside], labelled[outside] = 1, True
    bound.update(outside, labels, labelled)
    assert bound.renewals == 1 and bound.plan.grid.region[0].start == 0
