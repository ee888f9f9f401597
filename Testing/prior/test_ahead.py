"""Work that goes on in threads ahead of who takes its results."""

import threading

import pytest

from sparseseg.prior.together import ahead


def test_results_come_in_order_and_are_made_side_by_side():
    both = threading.Barrier(2)

    def work(n):
        both.wait(60)  # nobody comes past it alone
        return n, threading.get_ident()

    found = list(ahead(work, range(10), lambda: None, threads=2))
    assert [n for n, _ in found] == list(range(10))
    assert len({thread for _, thread in found}) == 2 and threading.get_ident() not in {thread for _, thread in found}


def test_no_more_is_begun_than_is_soon_taken():
    begun = []
    results = ahead(begun.append, iter(range(1000)), lambda: None, threads=2)
    for taken in range(1, 20):
        next(results)
        assert len(begun) <= taken + 4
    results.close()


def test_who_takes_them_looks_up_from_its_own_thread():
    looks = []
    assert list(ahead(lambda n: n, range(7), lambda: looks.append(threading.get_ident()))) == list(range(7))
    assert looks == [threading.get_ident()] * 7


@pytest.mark.parametrize("where", ["work", "look"])
def test_what_fails_ends_it_and_no_thread_is_left(where):
    def fail(*_):
        raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(ahead(fail if where == "work" else str, range(100), fail if where == "look" else lambda: None))
    assert threading.active_count() == before


def test_of_nothing_nothing_comes():
    assert list(ahead(str, [], lambda: None)) == []
