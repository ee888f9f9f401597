"""Exceptions that Slicer would only print: in slots, in VTK observers, in overridden virtual functions. A test looks at `errors`."""

import sys
import traceback

errors = []
_previous = []


def record():
    """Keep the exception that is being handled, and print it as Slicer does."""
    errors.append(traceback.format_exc())
    traceback.print_exc()


def tell(text):
    """Keep what Slicer would write to its log as an error."""
    errors.append(text)
    print(text, file=sys.stderr)


def _hook(kind, value, trace):
    errors.append("".join(traceback.format_exception(kind, value, trace)))
    _previous[-1](kind, value, trace)


def install():
    """VTK and PySide hand exceptions of callbacks to sys.excepthook; listen there."""
    if not _previous:
        _previous.append(sys.excepthook)
        sys.excepthook = _hook


def uninstall():
    """Give sys.excepthook back."""
    if _previous:
        sys.excepthook = _previous.pop()
