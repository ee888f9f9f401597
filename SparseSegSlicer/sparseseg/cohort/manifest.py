"""What has become of every volume of a cohort: one SQLite file, which only the driver writes.

A row a series says how it stands, another table lists each try. Every change is one transaction on the disk before work goes on, so that a driver
that is killed leaves a true manifest; what was running then is waiting when the next one opens it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..contract.errors import InputError, OutputError

NAME = "manifest.sqlite"
WAITING, RUNNING, DONE, FAILED, QUARANTINED = "waiting", "running", "done", "failed", "quarantined"
_VERSION = 1
_TABLES = """
CREATE TABLE series (
  name TEXT PRIMARY KEY,
  images TEXT NOT NULL,            -- a JSON list
  state TEXT NOT NULL,             -- waiting, running, done, failed (its tries died), quarantined (it cannot be used)
  attempts INTEGER NOT NULL DEFAULT 0,
  host TEXT, pid INTEGER,          -- where the last try ran
  error TEXT,                      -- one sentence and advice
  model TEXT, engine TEXT,         -- SHA-256 of the model's file; version
  estimate REAL, estimates TEXT,   -- the lowest of its segments' Dice, and all of them: a JSON object by segment ID
  voxels TEXT,                     -- of each segment: a JSON object by segment ID
  remarks TEXT,                    -- a JSON list of sentences
  seconds_read REAL, seconds_network REAL, seconds_write REAL,
  bytes_read INTEGER, bytes_written INTEGER,
  output TEXT, sha256 TEXT,        -- the result's file in the folder of the manifest, and its content
  stored TEXT,                     -- the archive that has taken this result
  started TEXT, ended TEXT         -- UTC
) WITHOUT ROWID;
CREATE TABLE tries (
  name TEXT NOT NULL, number INTEGER NOT NULL, host TEXT, pid INTEGER, started TEXT, ended TEXT,
  outcome TEXT,                    -- done, quarantined, died; interrupted: not by its fault; NULL: running
  error TEXT
);
CREATE INDEX by_state ON series (state);
CREATE INDEX by_name ON tries (name);
"""


@dataclass(frozen=True)
class Row:
    """What a page and a rerun need to know of a series."""

    name: str
    state: str
    attempts: int
    error: str
    model: str
    estimate: float | None
    estimates: dict[str, float]
    bytes_written: int
    output: str
    sha256: str
    remarks: tuple[str, ...]


class Manifest:
    """The manifest in a folder, made where there is none. Its owner has locked the folder."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError for a file that is no manifest of ours, OutputError where it cannot be written."""
        self._path = folder / NAME
        is_new = not self._path.exists()
        try:
            with self._speaking():
                if is_new:
                    os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # for this user alone, as SQLite would not make it
                self._database = sqlite3.connect(self._path, isolation_level=None)
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.execute("PRAGMA journal_mode = TRUNCATE")  # other modes need shared memory, which network disks have not
                version = self._database.execute("PRAGMA user_version").fetchone()[0]
                if version == 0 and not self._database.execute("SELECT 1 FROM sqlite_master").fetchone():
                    self._database.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
                elif version != _VERSION:
                    raise InputError(f"{self._path} is of version {version}, this engine reads {_VERSION}.", "Choose another folder.")
        except sqlite3.DatabaseError as error:
            raise InputError(f"{self._path} is no manifest of a cohort ({error}).", "Choose another folder.") from error

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turns what SQLite says of the disk into a sentence."""
        try:
            yield
        except (OSError, sqlite3.OperationalError) as error:
            raise OutputError(f"{self._path} could not be written ({error}).", "Free space or choose another folder.") from error

    def close(self) -> None:
        self._database.close()

    def _write(self, *statements: tuple[str, Sequence[Any]]) -> None:
        """As one."""
        with self._speaking():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                for statement, values in statements:
                    self._database.execute(statement, values)
                self._database.execute("COMMIT")
            except BaseException:
                self._database.execute("ROLLBACK")
                raise

    # -- before work ---------------------------------------------------------------------------------------------------

    def begin(self, series: Mapping[str, Sequence[str]]) -> None:
        """Take up a list, name -> images: a series is known by its name. New ones wait, and so do those that a driver left running when it was
        killed."""
        with self._speaking():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("UPDATE tries SET ended = ?, outcome = 'interrupted' WHERE ended IS NULL", (_now(),))
            self._database.execute("UPDATE series SET state = 'waiting', attempts = attempts - 1 WHERE state = 'running'")
            rows = [(name, json.dumps(list(images))) for name, images in series.items()]
            added = "INSERT INTO series (name, images, state) VALUES (?, ?, 'waiting') ON CONFLICT (name) DO UPDATE SET images = excluded.images"
            self._database.executemany(added, rows)
            self._database.execute("COMMIT")

    def wait(self, names: Sequence[str]) -> None:
        """Let these be done again, with as many tries as a new one has."""
        with self._speaking():
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany("UPDATE series SET state = 'waiting', attempts = 0, error = NULL WHERE name = ?", [(name,) for name in names])
            self._database.execute("COMMIT")

    # -- at work -------------------------------------------------------------------------------------------------------

    def started(self, name: str, host: str, pid: int) -> None:
        now = _now()
        change = "UPDATE series SET state = 'running', attempts = attempts + 1, host = ?, pid = ?, started = ?, ended = NULL WHERE name = ?"
        logged = "INSERT INTO tries (name, number, host, pid, started) SELECT name, attempts, host, pid, started FROM series WHERE name = ?"
        self._write((change, (host, pid, now, name)), (logged, (name,)))

    def done(self, name: str, model: str, engine: str, result: Mapping[str, Any]) -> None:
        """result: as of Segmented.to_json."""
        estimates = result["estimate"]
        values = {
            "state": DONE,
            "error": None,
            "stored": None,
            "model": model,
            "engine": engine,
            "estimate": min(estimates.values()) if estimates else None,
            "estimates": json.dumps(estimates),
            "voxels": json.dumps(result["voxels"]),
            "remarks": json.dumps(result["remarks"]),
            **{f"seconds_{part}": result["seconds"][part] for part in ("read", "network", "write")},
            **{key: result[key] for key in ("bytes_read", "bytes_written", "output", "sha256")},
        }
        self._end(name, DONE, values)

    def quarantined(self, name: str, sentence: str) -> None:
        """It cannot be used: no other try would help."""
        self._end(name, QUARANTINED, {"state": QUARANTINED, "error": sentence})

    def died(self, name: str, sentence: str, attempts: int) -> bool:
        """Whoever worked on it ended; whether it is tried once more, of so many attempts."""
        tried = self._database.execute("SELECT attempts FROM series WHERE name = ?", (name,)).fetchone()[0]
        again = tried < attempts
        self._end(name, "died", {"state": WAITING if again else FAILED, "error": sentence})
        return bool(again)

    def stopped(self, name: str) -> None:
        """Work on it was ended by us: it waits, and this was no try of its."""
        self._end(name, "interrupted", {"state": WAITING}, counts=False)

    def stored(self, name: str, archive: str) -> None:
        self._write(("UPDATE series SET stored = ? WHERE name = ?", (archive, name)))

    def _end(self, name: str, outcome: str, values: Mapping[str, Any], counts: bool = True) -> None:
        now = _now()
        fields = ", ".join(f"{key} = ?" for key in values)
        logged = "UPDATE tries SET ended = ?, outcome = ?, error = ? WHERE name = ? AND ended IS NULL"
        self._write(
            (logged, (now, outcome, values.get("error"), name)),
            (f"UPDATE series SET {fields}, ended = ?, attempts = attempts - ? WHERE name = ?", (*values.values(), now, 0 if counts else 1, name)),
        )

    # -- asked ---------------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How many series are in each state."""
        return dict(self._database.execute("SELECT state, count(*) FROM series GROUP BY state"))

    def rows(self, *states: str) -> Iterator[Row]:
        """Those in these states (none given: all), from the lowest estimate up."""
        those = f"WHERE state IN ({', '.join('?' * len(states))})" if states else ""
        fields = "name, state, attempts, error, model, estimate, estimates, bytes_written, output, sha256, remarks"
        for row in self._database.execute(f"SELECT {fields} FROM series {those} ORDER BY estimate IS NULL, estimate, name", states):
            name, state, attempts, error, model, estimate, estimates, written, output, sha256, remarks = row
            known = json.loads(estimates or "{}"), int(written or 0), output or "", sha256 or ""
            yield Row(name, state, attempts, error or "", model or "", estimate, *known, tuple(json.loads(remarks or "[]")))

    def unstored(self, archive: str) -> list[tuple[str, str]]:
        """(name, output) of each result that this archive has not taken."""
        wanted = "state = 'done' AND stored IS NOT ?"
        return list(self._database.execute(f"SELECT name, output FROM series WHERE {wanted} ORDER BY name", (archive,)))

    def tries(self) -> list[tuple[str, int, str | None, str | None]]:
        """(name, number, host, outcome) of each, in the order in which they began."""
        return list(self._database.execute("SELECT name, number, host, outcome FROM tries ORDER BY rowid"))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
