"""Messages over connections that break: each arrives once and in order; and what the other end may not do."""

import contextlib
import io
import random
import threading

import pytest

from sparseseg.contract.link import MAX_BYTES, Frame, Link, receive
from sparseseg.contract.protocol import MAX_LINE, ProtocolError


class Cut(io.RawIOBase):
    """A pipe that takes so many bytes and then breaks."""

    def __init__(self, size):
        self.taken, self._left = b"", size

    def write(self, data):
        self.taken += bytes(data[: self._left])
        self._left -= len(data)
        if self._left < 0:
            raise BrokenPipeError
        return len(data)

    def flush(self):
        pass


def carry(source, target, size):
    """One connection that breaks after so many bytes; what it brought."""
    connection, pipe, brought = source.attach(target.received), Cut(size), []
    with contextlib.suppress(BrokenPipeError):
        source.write(connection, pipe)
    source.detach()
    for message in receive(io.BytesIO(pipe.taken)):
        if target.heard(message):
            brought.append(message)
            target.dealt_with(message)
    return brought


@pytest.mark.parametrize("seed", range(5))
def test_each_message_arrives_once_and_in_order(seed):
    rng = random.Random(seed)
    source, target, brought = Link(), Link(), []
    sent = [Frame("part", {"n": n}, rng.randbytes(rng.randrange(200))) if n % 3 else f'{{"event":"progress","n":{n}}}\n' for n in range(100)]
    for message in sent:
        source.put(message)
    source.close()
    while len(brought) < len(sent):
        brought += carry(source, target, rng.randrange(2000))
    assert brought == sent
    source.attach(target.received)
    assert source.drained(0.0)


def test_who_sends_waits_while_much_is_under_way_and_no_longer_when_it_is_closed():
    link = Link()
    block = Frame("part", {}, bytes(1 << 23))
    link.put(block)
    link.put(block)
    waiting = threading.Thread(target=link.put, args=(block,))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    assert link.put(Frame("want"), patient=False)
    link.close()
    waiting.join(5.0)
    assert not waiting.is_alive() and not link.put(block)


def test_a_count_that_cannot_be_is_refused():
    link = Link()
    link.put(Frame("bye"))
    for received in (2, -1):
        with pytest.raises(ProtocolError):
            link.attach(received)
    link.attach(1)
    with pytest.raises(ProtocolError):
        link.attach(0)
    with pytest.raises(ProtocolError):
        link.heard(Frame("ack", {"received": "1"}))


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"[1]\n",
        b"\xff\n",
        b'{"frame":1}\n',
        b'{"frame":"part","bytes":-1}\n',
        b'{"frame":"part","bytes":true}\n',
        b'{"frame":"part","bytes":%d}\n' % (MAX_BYTES + 1),
        b" " * (MAX_LINE + 1),
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_message_ends_the_connection(content):
    with pytest.raises(ProtocolError):
        list(receive(io.BytesIO(content)))


def test_what_is_cut_is_no_message():
    whole = Frame("part", {"name": "a"}, b"123").encode()
    for size in range(len(whole)):
        assert list(receive(io.BytesIO(whole[:size]))) == []
    assert list(receive(io.BytesIO(whole))) == [Frame("part", {"name": "a"}, b"123")]
