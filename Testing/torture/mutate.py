"""Damaged bytes and nonsense in place of JSON, from random numbers alone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"3",
    b"300",
    b"65536",
    b"-2147483649",
    b"99999999999999999999",
    b"1e308",
    b"1e999",
    b"-0.0",
    b"nan",
    b"Infinity",
    b"0x10",
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_INTEGERS = (0, 1, -1, 2, 3, 255, 256, 2**31, -(2**31) - 1, 2**53, 2**63, 2**64, 10**30, -(10**30))
_FLOATS = (0.0, -0.0, 0.5, -1.5, 1e-320, 1e308, -1e308, 1e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    " ",
    "Segment_1",
    "bright",
    "../job.json",
    "/dev/zero",
    "annotation.npy",
    "job.json",
    "\x00",
    "\x1b[2J",
    "\ud800",
    "\u202eé",
    "a" * 5000,
    "nan",
    "1",
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The data with one to four faults."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_FAULTS)(data, rng)
    return data


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _early(data: bytes, rng: random.Random) -> bytes:
    """One byte among the first, where headers are."""
    changed = bytearray(data or b"\0")
    changed[rng.randrange(min(len(changed), 400))] = rng.choice((0, 10, 32, 48, 57, 127, 255, rng.randrange(256)))
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def span(data: bytes, rng: random.Random) -> tuple[int, int]:
    first = rng.randrange(len(data) + 1)
    return first, min(len(data), first + rng.choice((1, 2, 8, 100, 1000)))


def without(data: bytes, rng: random.Random) -> bytes:
    first, last = span(data, rng)
    return data[:first] + data[last:]


def _again(data: bytes, rng: random.Random) -> bytes:
    first, last = span(data, rng)
    return data[:last] + data[first:last] * rng.choice((1, 1, 20)) + data[last:]


def _between(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice((b"\n", b"\0", b"[" * 50, b'"', b"\xff\xfe", b"\xc3", rng.randbytes(rng.randrange(1, 20)))) + data[at:]


def _number(data: bytes, rng: random.Random) -> bytes:
    """One number in text is another, to the extremes."""
    found = list(_NUMBER.finditer(data[:4000]))
    if not found:
        return flip(data, rng)
    at = rng.choice(found)
    return data[: at.start()] + rng.choice(_NUMBERS) + data[at.end() :]


_FAULTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, _early, _early, cut, without, _again, _between, _number, _number)


def nonsense(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON can say, and some that only Python's can."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return rng.choice(_INTEGERS)
    if kind == 2:
        return rng.choice(_FLOATS)
    if kind in (3, 4):
        return rng.choice(_TEXTS)
    if kind == 5:
        return rng.choice((None, True, False, [], {}))
    if kind == 6:
        return [nonsense(rng, depth + 1) for _ in range(rng.randrange(5))]
    if kind == 7:
        return {rng.choice(_TEXTS): nonsense(rng, depth + 1) for _ in range(rng.randrange(4))}
    return json.loads("[" * 60 + "]" * 60)


def altered(text: str, rng: random.Random) -> Any:
    """What the JSON says, with one to three of its values gone, doubled, exchanged, or nonsense."""
    data = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _altered_once(data, rng)
    return data


def _altered_once(data: Any, rng: random.Random) -> Any:
    places = list(_places(data))
    if not places or rng.random() < 0.01:
        return nonsense(rng)
    holder, key = rng.choice(places)
    deed = rng.randrange(10)
    if deed == 0:
        del holder[key]
    elif deed == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif deed == 1:
        holder[rng.choice(_TEXTS)] = nonsense(rng)
    elif deed == 2:
        other, place = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[place]))  # a copy: no value may hold itself
    elif deed == 3 and type(holder[key]) in (int, float):
        holder[key] += rng.choice((-1, 1, 0.5, 1e-9))
    else:
        holder[key] = nonsense(rng)
    return data


def _places(data: Any) -> Any:
    """(list or dict, key) of each value, outside first."""
    for key in list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield data, key
        if isinstance(data[key], (dict, list)):
            yield from _places(data[key])
