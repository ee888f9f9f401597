"""Lines to a real worker, idle and training: each bad one is refused by one sentence, costs no memory that stays, and starts nothing."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path

from .deaths import LONG
from .engine import Engine
from .mutate import damaged
from .painter import Painter
from .trial import Trial

MOST_MEMORY = 300 * 2**20  # bytes that the longest line may cost
ODD, JUNK = 16, 50_000  # lines of a trial
_MOST_LINE = 1_000_000  # docs/protocol.md
_SMUGGLED = '{"command":"close","id":"smuggled"}'
_GOOD = (
    b'{"command":"cancel","id":"x"}',
    b'{"command":"update","id":"x","annotation":"annotation-2.npy","revision":2}',
    b'{"command":"open","id":"x","job":"/j"}',
)


def _odd_lines() -> dict[str, bytes]:
    """Each is one line that is no command, or one that cannot be done; each is answered once."""
    long = "\u00e9" * 300_000
    return {
        "overlong, a command in its tail": b"x" * (_MOST_LINE + 2) + _SMUGGLED.encode(),
        "overlong, commands every million characters": (b" " * (_MOST_LINE + 1) + _SMUGGLED.encode()) * 3,
        "a hundred million characters": b"x" * 100_000_000,
        "a number of 900,000 digits": b'{"command":"update","id":"x","annotation":"a","revision":' + b"9" * 900_000 + b"}",
        "nested 400,000 deep": b"[" * 400_000,
        "nested 400,000 deep in a command": b'{"command":"train","id":"x","settings":' + b'{"a":' * 150_000,
        "no UTF-8": b"\xff\xfe{\xc3}",
        "zeros": b"\0" * 1000,
        "an unknown command of 300,000 letters": json.dumps({"command": long, "id": "x"}, ensure_ascii=False).encode(),
        "a path of 300,000 letters": json.dumps({"command": "open", "id": "x", "job": long, "protocol": 4}, ensure_ascii=False).encode(),
        "an identity of 300,000 letters": json.dumps({"command": "finish", "id": long}, ensure_ascii=False).encode(),
        "a path with a zero": b'{"command":"open","id":"x","job":"\\u0000","protocol":4}',
        "a path of half a letter": b'{"command":"open","id":"x","job":"\\ud800","protocol":4}',
        "a device of nonsense": b'{"command":"open","id":"x","job":"/no job","device":"\\u001b[2Jprivateuseone:99999999999","protocol":4}',
        "two commands between carriage returns": b'{"command":"cancel","id":"a"}\r{"command":"cancel","id":"b"}',
        "not a number": b'{"command":"update","id":"x","annotation":"a","revision":NaN}',
    }


def odd_lines(trial: Trial) -> None:
    """One by one, to a worker that is idle or trains."""
    painter, engine = Painter(trial), Engine(trial)
    engine.open(painter.folder)
    training = trial.number % 2 == 1
    if training:
        engine.send("train", "t", settings=LONG)
        engine.until(lambda e: e.get("stage") == "training")
    before = _peak_bytes(engine)
    for name, line in _odd_lines().items():
        mark = len(engine.events)
        writer = threading.Thread(target=engine.raw, args=(line + b"\n",))
        writer.start()
        writer.join(60)
        engine.until(lambda e: e["event"] in ("error", "warning"))
        engine.send("dance", "end")  # a command that there is not: its complaint comes after whatever else the line has started
        engine.until(lambda e: "dance" in e.get("sentence", ""))
        trial.tried += 1
        said = [e for e in engine.events[mark:] if e["event"] in ("error", "warning", "ready") and "dance" not in e.get("sentence", "")]
        trial.require(not [e for e in said if "smuggled" in e["id"]], f"{name}: a part of it was done")
        trial.require([e["event"] for e in said] in (["error"], ["warning"]), f"{name}: {[(e['event'], e.get('sentence', '')[:80]) for e in said]}")
        trial.require(all(e.get("code") != "internal" and len(e["sentence"]) <= 1000 for e in said), f"{name}: {said[0].get('sentence', '')[:200]}")
        painter.check_strokes()
    trial.require(_peak_bytes(engine) - before < MOST_MEMORY, f"the lines took {(_peak_bytes(engine) - before) / 2**20:.0f} MiB")
    trial.require(b"Traceback" not in engine.text, engine.last)
    if training:
        engine.send("finish", "f")
        trial.require(engine.answer("t", "result", "error")["event"] == "result", f"the run was disturbed: {engine.last}")
    trial.require(engine.end() == 0, engine.last)
    painter.check_nothing_left(engine)


def junk_lines(trial: Trial) -> None:
    """Thousands of damaged commands at once, in random pieces: each is refused once, in order, and none is done."""
    count = 3000 if trial.quick else JUNK
    engine = Engine(trial)
    lines = [_junk(trial.rng) for _ in range(count)]
    data = b"\n".join(lines) + b"\n"
    while data:
        cut = trial.rng.choice((1, 100, 4096, 65536, 10**6))
        engine.raw(data[:cut])
        data = data[cut:]
    engine.send("cancel", "end")
    engine.answer("end", "ready")
    trial.tried += count
    complaints = engine.events[1:-1]
    trial.require(len(complaints) == count, f"{count} bad lines, {len(complaints)} answers")
    trial.require({(e["event"], e.get("code"), e["id"]) for e in complaints} == {("error", "protocol", "")}, "other answers than refusals")
    trial.require(max(len(e["sentence"]) for e in complaints) < 1000, "a complaint as long as a line")
    trial.require(engine.end() == 0, engine.last)


def _junk(rng: random.Random) -> bytes:
    """A damaged command that is no longer JSON, and not empty."""
    while True:
        line = damaged(rng.choice(_GOOD), rng).replace(b"\n", b"")
        try:
            json.loads(line.decode("utf-8", errors="replace"))
        except (ValueError, RecursionError):
            if line.strip():
                return line


def _peak_bytes(engine: Engine) -> int:
    """Of the worker's memory; 0 where that is not told."""
    try:
        status = Path(f"/proc/{engine.pid}/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
