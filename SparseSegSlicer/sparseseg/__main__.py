"""`python -m sparseseg`, and the program `sparseseg`."""

import os
import signal
import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the command line. While it is loaded there is nothing to clean up yet, so Ctrl-C ends it at once; afterwards nothing is left to stop."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from sparseseg.cli import main as run

    code = run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
