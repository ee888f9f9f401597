"""What Slicer's Qt classes offer to Python: names and signatures read from the headers of one Slicer version.

SLICER_QT_API chooses the version ("5.12.3", the default, or "5.10.0"). A stand-in widget has the members listed there and no other.
"""

import functools
import gzip
import json
import os
from pathlib import Path

DEFAULT_VERSION = "5.12.3"
FOLDER = Path(__file__).parent / "api"


def version():
    """The emulated Slicer version, for example "5.12.3"."""
    return os.environ.get("SLICER_QT_API", DEFAULT_VERSION)


@functools.cache
def classes():
    """Class name -> description; raises FileNotFoundError for a version without a catalogue."""
    path = FOLDER / f"slicer-qt-api-{version()}.json.gz"
    if not path.exists():
        known = sorted(p.name.removeprefix("slicer-qt-api-").removesuffix(".json.gz") for p in FOLDER.glob("*.json.gz"))
        raise FileNotFoundError(f"no API catalogue for Slicer {version()}; set SLICER_QT_API to one of {known}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)["classes"]


def known(name):
    """True if Slicer brings this class itself; classes that are listed only for PythonQt's decorators belong to Qt."""
    return name in classes() and not classes()[name].get("decorated_only")


def chain(name):
    """(name, description) of the class and its bases, up to the first class that is Qt's own."""
    while known(name):
        yield name, classes()[name]
        name = classes()[name]["base"]


def qt_base_name(name):
    """The Qt class at the end of the chain, for example "QWidget"; None where the header has no base."""
    return [description["base"] for _, description in chain(name)][-1]


class Members:
    """All members of a class with those of its bases: properties by name, methods (all overloads) by name, signals by signature."""

    def __init__(self, name):
        self.properties, self.methods, self.static, self.signals, self.enums = {}, {}, {}, {}, {}
        for _, description in reversed(list(chain(name))):
            self._add(description)

    def _add(self, description):
        decorators = description.get("decorators", {})
        self.properties.update({p["name"]: p for p in description["properties"]})
        self.signals.update({s["signature"]: s for s in description["signals"]})
        for method in description["slots"] + description["invokables"] + decorators.get("methods", []) + decorators.get("static", []):
            self.methods.setdefault(method["name"], []).append(method)
        for method in decorators.get("static", []):
            self.static.setdefault(method["name"], []).append(method)
        for values in description["enums"].values():
            if values["registered"]:
                self.enums.update(values["values"])

    def signal_named(self, name):
        """The first signature of a signal of this name, or None."""
        return next((s for s in self.signals if s.split("(")[0] == name), None)


@functools.cache
def members(name):
    """Members of a class; the empty set of members for a class that is Qt's own."""
    return Members(name)
