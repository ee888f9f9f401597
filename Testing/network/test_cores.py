"""Work on one core each: order, errors, and how many threads torch takes there."""

import threading

import pytest
import torch

from sparseseg.network import device
from sparseseg.network.cores import Cores, cores_of


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_order_and_all_items_are_worked_on(count):
    assert list(Cores(count).map(lambda n: n * n, range(50))) == [n * n for n in range(50)]


@pytest.mark.parametrize("count", [1, 2])
def test_what_work_raises_is_raised_to_who_asks(count):
    def fail(n):
        if n == 3:
            raise ValueError("three")
        return n

    taken = []
    with pytest.raises(ValueError, match="three"):
        for n in Cores(count).map(fail, range(9)):
            taken.append(n)
    assert taken == [0, 1, 2]


@pytest.mark.parametrize(("cores", "each"), [(2, 1), (5, 2)])
def test_the_threads_share_the_cores_and_the_one_that_asks_keeps_its_own(cores, each, monkeypatch):
    device.use_cores()
    before, meet = torch.get_num_threads(), threading.Barrier(2)

    def threads(_):
        meet.wait()  # both threads are at work
        torch.zeros(100_000).add_(1)  # makes torch set a thread up, if it was not
        return threading.get_ident(), torch.get_num_threads()

    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    monkeypatch.setattr(device, "use_cores", lambda: torch.set_num_threads(before))
    found = dict(Cores(2).map(threads, range(2)))
    assert sorted(found.values()) == [each, each]
    assert threading.get_ident() not in found
    assert torch.get_num_threads() == before


def test_a_graphics_card_is_asked_by_one_thread():
    assert list(cores_of("cuda").map(lambda _: threading.get_ident(), range(3))) == [threading.get_ident()] * 3
    assert cores_of("cpu") is cores_of("cpu")
