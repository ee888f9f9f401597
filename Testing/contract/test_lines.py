"""The lines of a pipe: what is too long, torn, or says two things at once is no message, as a whole; and an event always finds room on a line."""

import io
import json
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.protocol import (
    MAX_ID,
    MAX_LINE,
    Cancel,
    Check,
    Error,
    ProtocolError,
    Result,
    decode_command,
    decode_event,
    encode,
    encode_event,
    messages,
)

CANCEL = b'{"command":"cancel","id":"c"}'


def read(data):
    """What the lines say: ids of commands, None for what is no message."""
    return [None if isinstance(said, ProtocolError) else said.id for said in messages(io.BytesIO(data), decode_command)]


@pytest.mark.parametrize("length", [MAX_LINE, MAX_LINE + 1, MAX_LINE + 2, 2 * MAX_LINE, 2 * MAX_LINE + 1, 3_456_789])
@pytest.mark.parametrize("filling", [b"x", b" ", b"\0", b"\r"])
def test_of_a_line_that_is_too_long_no_part_is_a_command(length, filling):
    smuggled = CANCEL.replace(b'"c"', b'"smuggled"')
    for line in (filling * length + smuggled, smuggled + filling * length, smuggled + filling * length + smuggled):
        assert read(line + b"\n" + CANCEL + b"\n") == [None, "c"]
        assert read(line) == [None]  # and the pipe ends


def test_the_longest_line_is_a_command():
    line = CANCEL + b" " * (MAX_LINE - len(CANCEL) - 1) + b"\n"
    assert len(line) == MAX_LINE
    assert read(line + CANCEL) == ["c", "c"]
    assert read(CANCEL + b" " * (MAX_LINE - len(CANCEL)) + b"\n") == [None]


def test_a_line_without_end_takes_no_memory():
    class Endless(io.RawIOBase):
        left = 200

        def readline(self, limit=-1):
            self.left -= 1
            return b"x" * limit if self.left > 0 else b""

    tracemalloc.start()
    assert len(list(messages(Endless(), decode_command))) == 1
    assert tracemalloc.get_traced_memory()[1] < 10 * MAX_LINE
    tracemalloc.stop()


@pytest.mark.parametrize(
    "line",
    [
        b'{"command":"cancel","command":"close","id":"x"}',
        b'{"command":"cancel","id":"x","id":"y"}',
        b'{"command":"train","id":"x","settings":{"steps":1,"steps":2}}',
        b'{"command":"cancel","id":"\xff"}',
        b"\xef\xbb\xbf" + CANCEL,
        b'{"command":"cancel","id":"a"}\r{"command":"cancel","id":"b"}',
        CANCEL[:-1],
        CANCEL[:-1] + b"\0}",
        b"[" * 400_000,
        b'{"a":' * 100_000,
        b'{"command":"update","id":"x","annotation":"a","revision":' + b"9" * 900_000 + b"}",
        b'{"command":"cancel","id":"' + b"x" * (MAX_ID + 1) + b'"}',
        json.dumps({"command": "é" * 300_000, "id": "x"}, ensure_ascii=False).encode(),
        json.dumps({"command": ["é" * 300_000], "id": "x"}, ensure_ascii=False).encode(),
        json.dumps({"command": "cancel", "id": ["é" * 300_000]}, ensure_ascii=False).encode(),
    ],
)
def test_what_is_no_message_is_refused_in_a_sentence_of_some_words(line):
    [error, command] = messages(io.BytesIO(line + b"\r\n\n" + CANCEL + b"\r\n"), decode_command)
    assert isinstance(error, ProtocolError)
    assert len(str(error)) < 400
    assert command == Cancel("c")


@given(st.lists(st.sampled_from([CANCEL, b"", b"\0", b"{}", b"x" * 50, CANCEL[:9], CANCEL + b" "]), max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_are_read_one_by_one_whatever_is_among_them(lines, end):
    assert read(end.join(lines)) == ["c" if line.strip() == CANCEL else None for line in lines if line.strip()]


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_a_pipe_that_breaks_has_ended(error):
    class Broken(io.RawIOBase):
        def readline(self, limit=-1):
            raise error

    assert list(messages(Broken(), decode_command)) == []


PLACE = {"axis": 0, "index": 1, "box": [[0, 1]] * 3, "centre_ijk": [1, 2, 3], "voxels": 5, "painted": "a", "believed": "", "sureness": 0.5}


@pytest.mark.parametrize(
    "event",
    [
        Error("e", 1, "input", "é" * MAX_LINE, "x" * MAX_LINE),
        Error("e" * MAX_ID, 1, "input", "\U0001f600" * MAX_LINE, ""),
        Check("c", 1, [PLACE | {"sentence": "é" * 1000}] * 2000),
        Result("r", 1, "d", "u", "", "", "steps", 1, 1.0, {f"{n}-" + "é" * 500: 0.5 for n in range(5000)}, 0.5, [[0, 1]] * 5),
    ],
)
def test_an_event_that_is_too_long_is_cut_and_never_lost(event):
    with pytest.raises(ProtocolError):
        encode(event)
    line = encode_event(event)
    assert len(line) <= MAX_LINE
    said = decode_event(line)
    assert (type(said), said.id, said.revision) == (type(event), event.id, event.revision)


def test_an_event_that_fits_is_left_as_it_is():
    event = replace(Error("e", 1, "input", "x" * 5000, ""))
    assert decode_event(encode_event(event)) == event
