"""Every phase of a session in a process that may take no more memory than is said: python limited.py FOLDER MEGABYTES HUGE, HUGE 1 or 0.

What is large is smaller here, and so are the working grids, by as much as the volume is smaller than those that the limits are meant for.
"""

import json
import math
import resource
import sys
from dataclasses import replace
from pathlib import Path

for _room in (".", "benchmark", "session"):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / _room))

import numpy as np  # noqa: E402
from large import Phantom  # noqa: E402
from machine import status  # noqa: E402
from sessions import Host  # noqa: E402

from phantoms import make_job, two_organs  # noqa: E402
from sparseseg.contract import box as box_module  # noqa: E402
from sparseseg.contract import scratch  # noqa: E402
from sparseseg.contract.classes import ClassTable  # noqa: E402
from sparseseg.contract.geometry import Geometry  # noqa: E402
from sparseseg.contract.job import Job, JobRecord  # noqa: E402
from sparseseg.contract.settings import Settings  # noqa: E402
from sparseseg.network import device  # noqa: E402
from sparseseg.prior import compiled, refiner_view, scales  # noqa: E402
from sparseseg.session.devices import DeviceChoice  # noqa: E402
from sparseseg.session.session import Session  # noqa: E402

SHAPE = (160, 380, 380)
SETTINGS = replace(Settings(), steps=20, width=4, depth=2, patch_voxels=32**2, batch=2)
SEGMENTS = 5


class Quiet(Host):
    """Remembers which phases there were, and no array."""

    def preview(self, file, source, step, revision, box):
        self.previews.append((source, box is None, revision, box and math.prod(box_module.shape_of(box))))


def phases(folder, correction, far):
    """open, first preview, refined one, training, result, corrections, idle, prediction. correction: a box and its values; far: the annotation with
    more strokes, far apart."""
    host = Quiet()
    running = Session.open(folder, DeviceChoice(chosen=device.choose("cpu")), host)
    outcome = running.train()
    box, values = correction
    np.save(running.job.path("annotation-0002.npy"), values)
    running.update("annotation-0002.npy", 2, [], [[s.start, s.stop] for s in box])
    np.save(running.job.path("annotation-0003.npy"), far)
    del far
    running.update("annotation-0003.npy", 3, [])
    running.idle()
    dense = np.load(outcome.dense, mmap_mode="r")
    predicted = running.predict()
    running.close()
    return host, dense, predicted


def main():
    folder, limit, is_huge = Path(sys.argv[1]), int(sys.argv[2]) * 1_000_000, sys.argv[3] == "1"
    compiled.warm_up()
    organs = two_organs()
    spot = (slice(9, 10), slice(20, 21), slice(10, 14))
    phases(
        make_job(folder / "warm", organs), (spot, organs.truth[spot] + np.uint8(1)), organs.annotation
    )  # loads and starts whatever takes memory of its own
    phantom = Phantom(SHAPE)
    image, annotation = (
        phantom.write(folder / name, planes, kind)
        for name, planes, kind in (("image.npy", phantom.images(), np.int16), ("annotation.npy", phantom.annotations(), np.uint8))
    )
    record = JobRecord(Geometry.from_axes(SHAPE, (1, 1, 1)), ClassTable.numbered(SEGMENTS), SETTINGS)
    Job.create(folder / "job", image, annotation, record).close()
    scratch.LEAST_BYTES, scratch.HUGE_VOXELS = 1 << 20, 1 if is_huge else 1 << 40
    box_module._TOGETHER_VOXELS = 100_000
    scales.ALL_VOXELS, scales.NOISY_CELLS, scales.HUGE_CELLS = 0, 100_000, 200_000
    refiner_view.WORKING_VOXELS, box_module._SLAB_VOXELS = 20_000, 400_000
    most = status("VmData") + limit
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    k = SHAPE[0] // 2 + 5
    j, i = (int(n[0]) for n in np.nonzero(phantom.truth(k)))
    box = (slice(k, k + 1), slice(j, j + 1), slice(i, i + 5))
    correction = box, phantom.truth(k)[None][:, box[1], box[2]] + np.uint8(1)
    annotation[box] = correction[1]
    for k in (phantom.complete[0] + 3, phantom.complete[-1] - 3):  # across the border of the first segment and that of another one
        c = 1 if k < SHAPE[0] // 2 else 3
        at = np.nonzero(phantom.truth(k) == c)
        line = (k, int(at[0].mean()), slice(int(at[1].max()) - 2, int(at[1].max()) + 3))
        annotation[line] = phantom.truth(k)[line[1:]] + 1
    host, dense, predicted = phases(folder / "job", correction, annotation)
    found = {"previews": host.previews, "warnings": host.warnings, "dice": phantom.dice(dense, annotation), "left": most - status("VmData")}
    print(json.dumps({**found, "predicted": [*np.load(predicted.dense, mmap_mode="r").shape]}))


if __name__ == "__main__":
    main()
