"""Multipart bodies: the same contents however the pieces fall, and no end but the last boundary."""

import tracemalloc

import pytest

from sparseseg.cohort.multipart import BrokenOff, boundary_of, parts

BODY = b"preamble\r\n--b\r\nContent-Type: x\r\n\r\nfirst\r\n-- b\r\n--b\r\n\r\n\r\n--b \t\r\nA: 1\r\nB: 2\r\n\r\nthird\r\n--b--\r\nepilogue"
CONTENTS = [b"first\r\n-- b", b"", b"third"]


def read(body, length):
    pieces = (body[n : n + length] for n in range(0, len(body), length))
    return [b"".join(content) for content in parts(pieces, b"b")]


@pytest.mark.parametrize("length", range(1, len(BODY) + 1))
def test_contents_are_the_same_however_the_pieces_fall(length):
    assert read(BODY, length) == CONTENTS


def test_a_body_may_begin_with_its_boundary():
    assert read(b"--b\r\n\r\nonly\r\n--b--", 3) == [b"only"]


@pytest.mark.parametrize("end", range(BODY.index(b"--b--") + 2))
def test_a_body_that_ends_before_its_last_boundary_is_said_to_be_broken_off(end):
    with pytest.raises(BrokenOff):
        read(BODY[:end], 7)


def test_a_part_whose_content_nobody_reads_is_passed_over():
    taken = [b"" if n == 0 else b"".join(content) for n, content in enumerate(parts(iter([BODY]), b"b"))]
    assert taken == [b"", *CONTENTS[1:]]


def test_a_header_without_end_is_refused():
    with pytest.raises(BrokenOff):
        read(b"--b\r\n" + b"x" * 20_000 + b"\r\n\r\n\r\n--b--", 1000)


def test_little_is_held_of_a_long_part():
    def pieces():
        yield b"--b\r\n\r\n"
        for _ in range(512):
            yield bytes(1 << 16)
        yield b"\r\n--b--"

    tracemalloc.start()
    try:
        total = sum(len(piece) for content in parts(pieces(), b"b") for piece in content)
        assert total == 512 << 16
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('Multipart/Related;boundary="a b;c"; type=x', b"a b;c"),
        ("multipart/related; type=x", None),
        ("multipart/related; myboundary=x", None),
        ("application/dicom; boundary=abc", None),
        ("", None),
    ],
)
def test_the_boundary_is_found_in_the_type(content_type, boundary):
    assert boundary_of(content_type) == boundary
