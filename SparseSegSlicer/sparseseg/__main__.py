"""`python -m sparseseg`, and the command `sparseseg`: no module is loaded from the folder that they are started in, which is often the patient's."""

# ruff: noqa: PTH100, PTH117, PTH120 - a module that is not loaded yet, as pathlib, would be looked for in that folder first
import os
import sys

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _forget_working_folder() -> None:
    """`python -m` puts it first on the path, as does an empty entry of PYTHONPATH; this package's own folder stays."""
    given = os.environ.get("PYTHONPATH")
    relative = [os.path.abspath(path) for path in given.split(os.pathsep) if not os.path.isabs(path)] if given else []
    if __name__ == "__main__" and not sys.flags.safe_path:
        relative.append(os.path.abspath(sys.path[0]))
    for path in relative:
        if path != _OWN and (place := next((n for n, each in enumerate(sys.path) if os.path.abspath(each) == path), None)) is not None:
            del sys.path[place]


_forget_working_folder()
_INTERRUPTED = 130

try:
    import signal
except KeyboardInterrupt:  # it takes a moment
    os._exit(_INTERRUPTED)


def main() -> int:
    """Run the command line. While it is loaded there is nothing to clean up yet, so Ctrl-C ends it at once; afterwards nothing is left to stop."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from sparseseg.cli import main as run

    code = run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if code > 128:  # packages that were interrupted while they were loaded are not taken apart
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
