"""What an engine on another computer costs: bytes and seconds of a session over a real sshd on this one, at full speed and over a slow line.

    python Testing/benchmark/ssh.py --shape 300 512 512 --rates 0 2

A CT of that shape with a few annotated slices is opened and trained on, gets five strokes, and is finished; the relay between the two counts what
passes, ssh's own part included. The engine shares this computer with its host, so seconds of its work are those of a local one. Numbers are read
by people.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "remote"))

import numpy as np
from common import SEGMENTS, annotate, organs
from servers import PACKAGES, Relay, Sshd, Talk

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.protocol import Finish, Preview, Progress, Ready, Result, Train, Update
from sparseseg.contract.settings import Settings

STROKES = 5
UNLIMITED = 1e12


class Line:
    """What passed since the last look."""

    def __init__(self, relay, talk):
        self._relay, self._talk, self._before, self._start = relay, talk, (0, 0), time.monotonic()

    def say(self, what):
        there, back = self._relay.passed
        seconds = time.monotonic() - self._start
        previews = ", ".join(f"{e.source} {'box' if e.box else 'whole'}" for e in self._talk.events if isinstance(e, Preview))
        kilobytes = f"{(there - self._before[0]) / 1000:>12,.1f}{(back - self._before[1]) / 1000:>12,.1f}"
        print(f"  {what:<34}{kilobytes}{seconds:>9.2f}  {previews}", flush=True)
        self._talk.events.clear()
        self._before, self._start = (there, back), time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("K", "J", "I"))
    parser.add_argument("--image", type=Path, help="an .npy file, (K, J, I), in place of the phantom's gray values")
    parser.add_argument("--rates", type=float, nargs="+", default=(0, 2), metavar="MB", help="million bytes a second; 0: as fast as it goes")
    parser.add_argument("--seconds", type=float, default=30.0, help="of training, before the result is asked for")
    options = parser.parse_args()
    image, truth = organs(tuple(options.shape))
    if options.image:
        image = np.load(options.image)
    with tempfile.TemporaryDirectory(prefix="ssh-bench-") as folder:
        for number, rate in enumerate(options.rates):
            base = Path(folder, str(number))
            base.mkdir()
            job = make(base / "job", image, truth)
            if number == 0:
                raw = (job / "image.npy").read_bytes()
                print(
                    f"{' x '.join(map(str, truth.shape))}, {image.dtype}: {len(raw) / 1000:,.0f} kB, {len(gzip.compress(raw)) / 1000:,.0f} kB by gzip"
                )
            session(base, job, truth, rate * 1e6 or UNLIMITED, options.seconds)
    return 0


def make(job: Path, image: np.ndarray, truth: np.ndarray) -> Path:
    annotation, complete = annotate(truth)
    geometry = Geometry.from_axes(truth.shape, (0.8, 0.8, 1.5), (0, 0, 0))
    record = JobRecord(geometry, ClassTable.numbered(SEGMENTS), Settings(), complete_slices=tuple(complete))
    Job.create(job, image, annotation, record).close()
    return job


def session(base: Path, job: Path, truth: np.ndarray, rate: float, seconds: float) -> None:
    temporary = base / "server"
    temporary.mkdir()
    (base / "sshd").mkdir()
    sshd = Sshd(base / "sshd", {"PYTHONPATH": PACKAGES, "TMPDIR": str(temporary)})
    relay = Relay(sshd.port, rate)
    with open(sshd.folder / "known_hosts", "a") as hosts:
        hosts.write(f"[127.0.0.1]:{relay.port} {(sshd.folder / 'host_key.pub').read_text()}")
    os.environ["PATH"] = f"{sshd.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    print(f"\n{'as fast as it goes' if rate == UNLIMITED else f'{rate / 1e6:g} MB/s'}{'':<18}{'kB there':>12}{'kB back':>12}{'s':>9}  previews")
    talk = Talk(sshd.server(port=relay.port))
    line = Line(relay, talk)
    try:
        talk.until(Ready, 600, id="")
        line.say("connected")
        talk.open(job)
        line.say("volume and annotation there")
        talk.client.send(Train("train", {"time_budget_s": 3600}))
        talk.until(Preview, 600, id="train", source="growing")
        line.say("first preview")
        talk.until(Preview, 600, id="train", source="prior")
        line.say("refined")
        talk.until(Progress, 600, stage="training")
        line.say("training begins")
        for number in range(STROKES):
            talk.client.send(stroke(job, truth, 2 + number))
            talk.until(Preview, 600, id=f"stroke {number}", source="growing")
            line.say(f"stroke {number + 1}: growing's answer")
            talk.until(Preview, 600, source="prior")
            line.say(f"stroke {number + 1}: refined")
        time.sleep(seconds)
        while talk.client.poll():
            pass
        line.say(f"{seconds:g} s of training")
        talk.client.send(Finish("finish"))
        talk.until(Result, 600)
        line.say("result, all its files")
        talk.client.close(60).join()
        line.say(f"closed; left there: {len(list(temporary.iterdir()))} files")
    finally:
        talk.client.kill()
        relay.close()
        sshd.stop()


def stroke(job: Path, truth: np.ndarray, revision: int) -> Update:
    """A line of 60 x 5 voxels with the truth's labels, on a slice that has none yet."""
    depth, height, width = truth.shape
    k = depth // 8 + revision * depth // 12
    j, i = height // 2 - 3, width // 2 - 30 + 10 * (revision % 3)
    box = (slice(k, k + 1), slice(j, j + min(5, height - j)), slice(max(i, 0), min(i + 60, width)))
    np.save(job / f"annotation-{revision:04d}.npy", truth[box] + np.uint8(1))
    return Update(f"stroke {revision - 2}", f"annotation-{revision:04d}.npy", revision, [], [[s.start, s.stop] for s in box])


if __name__ == "__main__":
    sys.exit(main())
