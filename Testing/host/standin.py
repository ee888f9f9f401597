"""Stand-ins for the widgets of CTK and Slicer: a PySide class with the members of the catalogue and no other.

A behaviour class gives a member its effect by a method named get_<property>, set_<property> or do_<method>; PythonQt lookups do not see
these. Members without one store their value, and their calls are recorded in `calls`.
"""

import functools
import threading

from PySide6 import QtCore, QtGui, QtWidgets

from host import catalogue, pythonqt, signals
from host.wrapping import DEFAULTS, Wrapped, convert, fits, unwrap, wrap

calls = []  # (class, objectName, method, arguments) of members without behaviour
_behaviours = {}


def behaviour(cls):
    """Decorator: the class gives behaviour to the stand-in of the same name."""
    _behaviours[cls.__name__] = cls
    return cls


class StandIn:
    """Members by the catalogue. Mixed into a PySide class; `values` holds properties without behaviour."""

    def prepare(self):
        """Called by the constructor, after Qt's."""

    def get_(self, name):
        """Value of a property."""
        getter = getattr(self, "get_" + name, None)
        return getter() if getter else self.values.get(name, DEFAULTS.get(self.catalogue_members.properties[name]["type"]))

    def set_(self, name, value):
        """Set a property: store, call set_<name>, emit its NOTIFY signal if it changed."""
        old = self.get_(name)
        self.values[name] = value
        setter = getattr(self, "set_" + name, None)
        if setter:
            setter(value)
        notify = self.catalogue_members.properties[name].get("notify")
        if notify and old != value:
            self.emit_(self.catalogue_members.signal_named(notify), value)

    def emit_(self, signature, *arguments):
        """Send a signal of the catalogue."""
        signals.emit(self, signature, *arguments)

    def call_(self, name, arguments):
        """Call a method by the overload that takes the arguments; ValueError if none does, RuntimeError in a thread that is not Qt's own."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self.catalogue_name}.{name} was called from the thread {threading.current_thread().name}")
        overloads = self.catalogue_members.methods[name]
        overload = next((o for o in overloads if _takes(o["args"], arguments)), None)
        if overload is None:
            raise ValueError(f"{self.catalogue_name}.{name}{tuple(arguments)}: none of {[o['signature'] for o in overloads]} takes these arguments")
        arguments = [convert(a, parameter["type"]) for a, parameter in zip(arguments, overload["args"], strict=False)]
        action = getattr(self, "do_" + name, None)
        return action(*arguments) if action else self._generic(overload, arguments)

    def _generic(self, overload, arguments):
        """A property's READ or WRITE function, or a recorded call that returns a stand-in or a zero of the right type."""
        name, returns = overload["name"], overload["returns"]
        for p in self.catalogue_members.properties.values():
            if p.get("write") == name and len(arguments) == 1:
                return self.set_(p["name"], arguments[0])
            if p.get("read") == name and not arguments:
                return self.get_(p["name"])
        calls.append((self.catalogue_name, self.objectName(), name, arguments))
        if returns.endswith("*") and catalogue.known(returns[:-1]):
            if name not in self.parts:
                self.parts[name] = standin(returns[:-1])()
            return self.parts[name]
        return DEFAULTS.get(returns)


def _takes(parameters, arguments):
    needed = sum(not p.get("optional") for p in parameters)
    return needed <= len(arguments) <= len(parameters) and all(fits(a, p["type"]) for a, p in zip(arguments, parameters, strict=False))


def _qt_base(name):
    """PySide's class at the end of the chain; QWidget where the catalogue has no such class and the name speaks of a widget."""
    base = catalogue.qt_base_name(name)
    found = next((getattr(m, base) for m in (QtCore, QtGui, QtWidgets) if hasattr(m, base or "")), None)
    return found or (QtWidgets.QWidget if "Widget" in name or "View" in name else QtCore.QObject)


@functools.cache
def standin(name):
    """The PySide class of a catalogue class, made at first use."""
    base = _qt_base(name)
    mixin = next((_behaviours[n] for n, _ in catalogue.chain(name) if n in _behaviours), StandIn)

    def construct(self, *arguments):
        base.__init__(self, *[unwrap(a) for a in arguments])
        self.values, self.parts = {}, {}
        self.prepare()

    body = {"__init__": construct, "catalogue_name": name, "catalogue_members": catalogue.members(name), "qt_base": base}
    if base is QtWidgets.QAbstractButton and not hasattr(mixin, "paintEvent"):
        body["paintEvent"] = lambda self, event: None  # pure virtual
    return type(name, (mixin, base), body)


def make(name, *arguments):
    """A new stand-in as Python code sees it, also for classes without a Python constructor."""
    return wrap(standin(name)(*arguments))


def behind(proxy):
    """The stand-in behind a proxy, for the test's own use."""
    return proxy._q if isinstance(proxy, Wrapped) else proxy


pythonqt.standin_class = standin
