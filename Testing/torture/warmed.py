"""Imported by the process that copies are made of: the engine is loaded and trains once, on one core, since threads are not copied."""

import os
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTING), str(TESTING / "session")]

from sessions import Host  # noqa: E402

from phantoms import make_job, two_organs  # noqa: E402
from sparseseg import worker  # noqa: E402, F401
from sparseseg.contract.settings import Settings  # noqa: E402
from sparseseg.network import cores  # noqa: E402
from sparseseg.prior import compiled  # noqa: E402
from sparseseg.session.devices import DeviceChoice  # noqa: E402
from sparseseg.session.session import Session  # noqa: E402

from .painter import QUICK, SHAPE_KJI  # noqa: E402


def _train_once() -> None:
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder) / "job", two_organs(SHAPE_KJI), replace(Settings(), **QUICK))
        session = Session.open(job, DeviceChoice("cpu"), Host())
        session.train(resume=False)
        session.close()
    cores.cores_of.cache_clear()
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()  # a lock that it holds would be held in every copy, for ever


allowed = os.sched_getaffinity(0)
os.sched_setaffinity(0, {min(allowed)})
try:
    compiled.warm_up()
    _train_once()
finally:
    os.sched_setaffinity(0, allowed)
