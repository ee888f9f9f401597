"""A process that segments volumes for a cohort's driver: `python -m sparseseg.cohort.child`. One JSON object a line: its setting, then tasks in; that
it is ready, then answers out. It ends with its stdin, whatever it is doing then."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from typing import IO, Any

from .. import streams
from ..contract.errors import SparseSegError, WorkerError
from .actors import Servant, Setting, Task, error_json


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver hears it, and says what follows
    stdin, out, _ = streams.claim()
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(stdin, lines), name="stdin", daemon=True).start()
    try:
        servant = Servant(Setting(**json.loads(lines.get())))
    except SparseSegError as error:
        _say(out, {"failed": error_json(error)})
        return
    except Exception as error:
        _say(out, {"failed": error_json(WorkerError(f"It could not begin ({type(error).__name__}: {error!s:.200}).", "Please report this."))})
        return
    _say(out, {"ready": servant.place()})
    while True:
        task = json.loads(lines.get())
        kind, result = servant.answer(Task(**{**task, "images": tuple(task["images"])}))
        _say(out, {"kind": kind, "result": result})


def _read(stdin: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    for line in stdin:
        lines.put(line)
    os._exit(0)


def _say(out: IO[str], data: dict[str, Any]) -> None:
    out.write(json.dumps(data) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
