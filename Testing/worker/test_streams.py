"""A worker's three streams: closed, full, not read, or a file; and a worker that is stopped for a while. Real processes."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from sparseseg.contract.child import child_options
from sparseseg.contract.protocol import Cancel, Close, Error, Finish, Open, Progress, Ready, Result, Train, decode_event, encode

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX streams and signals")
LONG = {"steps": 100_000, "estimate": False}
PATIENCE_S = 60.0
START = [sys.executable, "-u", "-m", "sparseseg", "worker"]


@pytest.fixture
def start():
    started = []

    def one(command=START, **options):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, **child_options(), **pipes | options))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate()


def send(process, *commands):
    process.stdin.write("".join(map(encode, commands)).encode("ascii"))
    process.stdin.flush()


def events(process):
    for line in process.stdout:
        yield decode_event(line.decode("ascii"))


def until(process, kind, **wanted):
    return next(e for e in events(process) if isinstance(e, kind) and all(getattr(e, name) == value for name, value in wanted.items()))


@pytest.mark.slow
@posix
@pytest.mark.parametrize("busy", [True, False])
def test_a_host_that_closes_stdout_ends_the_worker_also_in_training(start, job, busy):
    process = start()
    send(process, Open("o", str(job), "cpu"))
    until(process, Ready, id="o")
    if busy:
        send(process, Train("t", LONG))
        until(process, Progress, stage="training")
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 141
    process.stdout = None


@posix
@pytest.mark.parametrize(("closed", "code"), [(0, 0), (1, 141), (2, 0)])
def test_a_stream_that_is_closed_from_the_start_is_no_trouble(start, closed, code):
    process = start(preexec_fn=lambda: os.close(closed), **({} if closed == 0 else {"stdin": subprocess.DEVNULL}))
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert closed == 1 or decode_event(out.decode("ascii").splitlines()[0]).kind == "ready"


def test_commands_may_come_from_a_file(start, tmp_path):
    (tmp_path / "commands").write_bytes(encode(Cancel("c")).encode("ascii") + encode(Finish("f")).encode("ascii") + b'{"command":"can')
    with open(tmp_path / "commands", "rb") as file:
        process = start(stdin=file)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "c" in {decode_event(line).id for line in out.decode("ascii").splitlines()}


CHATTY = """
import sys
from sparseseg import streams
stdin, stdout, stderr = streams.claim()
for n in range(20000):
    print("x" * 100)
    sys.stderr.write("y" * 100)
stdout.write("done\\n")
stdout.flush()
stdin.readline()
stderr.drain()
"""


def test_a_reader_of_stderr_who_has_stopped_holds_nobody_up(start):
    process = start([sys.executable, "-c", CHATTY], stderr=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"done"
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 0  # nobody has read a letter
    process.stdin = None


@posix
def test_a_closed_stderr_holds_nobody_up(start):
    process = start([sys.executable, "-c", CHATTY], stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.stdout.readline().strip() == b"done"
    process.stderr = None
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


@pytest.mark.slow
@posix
def test_a_reader_of_stdout_who_has_stopped_does_not_keep_a_worker_from_ending(start, job):
    code = "worker._EXIT_AFTER_EOF_S = 1.0; worker._HEARTBEAT_S = worker._PROGRESS_EVERY_S = 0.0; worker._STUCK_S['training'] = 2.0"
    process = start([sys.executable, "-c", f"from sparseseg import worker; {code}; worker.main()"])
    send(process, Open("o", str(job), "cpu"), Train("t", LONG))
    until(process, Progress, stage="training")
    time.sleep(6)  # the pipe is full, and it waits to be read: that is not being stuck
    assert process.poll() is None
    send(process, Close("x"))
    assert process.wait(PATIENCE_S) == 0


@posix
def test_a_worker_whose_host_is_gone_ends_also_where_no_thread_begins(start):
    begins = "begin = threading.Thread.start; threading.Thread.start = lambda self: time.sleep(3600) if self.name == 'end' else begin(self)"
    code = f"import threading, time; from sparseseg import worker; {begins}; worker._EXIT_AFTER_EOF_S = 0.5"
    process = start([sys.executable, "-c", f"{code}; worker.Worker._next = lambda _: time.sleep(3600); worker.main()"])
    until(process, Ready)
    process.stdin.close()
    process.stdin = None
    assert process.wait(PATIENCE_S) == -signal.SIGALRM


@pytest.mark.slow
@posix
@pytest.mark.parametrize("stops", [[4.0], [0.3] * 15], ids=["once", "again and again"])
def test_a_process_that_was_stopped_for_longer_than_a_step_may_take_is_not_stuck(start, job, stops):
    code = "from sparseseg import worker; worker._STUCK_S['training'] = 1.5; worker.main()"
    process = start([sys.executable, "-c", code])
    send(process, Open("o", str(job), "cpu"), Train("t", LONG))
    until(process, Progress, stage="training")
    answers = []
    reader = threading.Thread(target=lambda: answers.extend(e for e in events(process) if isinstance(e, Result | Error)), daemon=True)
    reader.start()
    for seconds in stops:
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    time.sleep(1.0)
    send(process, Finish("f"))
    end = time.monotonic() + PATIENCE_S
    while not answers and time.monotonic() < end:
        time.sleep(0.05)
    assert [type(e) for e in answers] == [Result]
    send(process, Close("x"))
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
@posix
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_a_worker_at_once_without_a_traceback(start, job, number):
    process = start(stderr=subprocess.PIPE)
    send(process, Open("o", str(job), "cpu"), Train("t", LONG))
    until(process, Progress, stage="training")
    process.send_signal(getattr(signal, number))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -getattr(signal, number)
    assert b"Traceback" not in err


SPINNING = """
import re, threading
from sparseseg import worker
worker._SPINNING_S = 0.5 / __import__("os").cpu_count()
threading.Timer(1, lambda: re.match("(a+)+$", "a" * 60 + "b")).start()  # which takes ages, and keeps the interpreter's lock
worker.main()
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers of POSIX")
def test_a_process_that_spins_with_the_interpreters_lock_is_ended(start):
    process = start([sys.executable, "-c", SPINNING])
    assert process.wait(60) == -signal.SIGPROF


NEVER_BEGINS = """
import threading
from sparseseg import worker
worker._START_S = 1.0
begin = threading.Thread.start  # which does not return where the thread's first moment finds no memory
threading.Thread.start = lambda self: threading.Event().wait() if self.name == NAME else begin(self)
worker.main()
"""


@pytest.mark.parametrize("name", ["stderr", "stdin", "heartbeat"])
def test_a_process_whose_first_threads_never_begin_is_ended(start, name):
    process = start([sys.executable, "-c", f"NAME = {name!r}{NEVER_BEGINS}"], stderr=subprocess.PIPE)
    assert process.wait(60) == 1
    assert b"Timeout" in process.stderr.read()
