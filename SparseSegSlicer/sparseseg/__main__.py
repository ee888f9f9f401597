"""`python -m sparseseg`, and the program `sparseseg`."""

import os
import sys

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
