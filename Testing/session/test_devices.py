"""The device is chosen by a thread of its own: who asks early waits and looks up, and failures are raised where it is asked for."""

import threading
import time
from dataclasses import replace

import pytest

from sparseseg.contract.errors import Cancelled, DeviceError
from sparseseg.network import device
from sparseseg.prior import compiled, rehearsal
from sparseseg.session.devices import DeviceChoice


@pytest.fixture
def slow(monkeypatch):
    """device.choose that waits for an event, and counts; the kernels are warm already, and nothing is rehearsed."""
    go, asked = threading.Event(), []

    def choose(requested):
        asked.append(requested)
        assert go.wait(30)
        return device.on_cpu(f"asked for {requested}")

    monkeypatch.setattr(compiled, "warm_up", lambda: True)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: None)
    monkeypatch.setattr(device, "choose", choose)
    yield go, asked
    go.set()


def test_a_device_that_is_given_is_known_at_once():
    cpu = device.on_cpu("given")
    choice = DeviceChoice(chosen=cpu)
    assert choice.known is cpu
    assert choice.compute(lambda: pytest.fail("looked up")) is cpu


def test_who_asks_early_waits_and_looks_up(slow):
    go, asked = slow
    choice, looks = DeviceChoice("cpu"), []

    def look():
        looks.append(choice.known)
        if len(looks) == 3:
            go.set()

    assert choice.compute(look).why.endswith("since asked for cpu")
    assert looks[:3] == [None] * 3
    assert choice.known is choice.compute()
    assert asked == ["cpu"]  # once


def test_waiting_can_be_cancelled_and_begun_again(slow):
    go, asked = slow
    choice = DeviceChoice("auto")

    def stop():
        raise Cancelled

    start = time.monotonic()
    with pytest.raises(Cancelled):
        choice.compute(stop)
    assert time.monotonic() - start < 5
    assert choice.known is None
    go.set()
    assert choice.compute() is choice.known
    assert asked == ["auto"]


def test_what_choosing_raised_is_raised_to_everybody_who_asks(monkeypatch):
    def fail(requested):
        raise DeviceError(f"no {requested}")

    monkeypatch.setattr(compiled, "warm_up", lambda: True)
    monkeypatch.setattr(device, "choose", fail)
    choice = DeviceChoice("cuda:7")
    for _ in range(2):
        with pytest.raises(DeviceError, match="no cuda:7"):
            choice.compute()
    assert choice.known is None


def test_kernels_that_do_not_load_are_no_reason_to_do_without_a_device(slow, monkeypatch):
    slow[0].set()
    monkeypatch.setattr(compiled, "warm_up", lambda: False)
    assert DeviceChoice("cpu").compute().device.type == "cpu"


def test_it_can_be_replaced():
    choice = DeviceChoice(chosen=device.on_cpu("first"))
    other = replace(device.on_cpu("second"), name="another")
    choice.replace(other)
    assert choice.known is choice.compute() is other
