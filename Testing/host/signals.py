"""Signals and slots by PythonQt's rules: names as text, a Python function gets only as many arguments as it takes."""

import functools
import inspect
import re
import types

from PySide6 import QtCore

from host import catalogue, errors
from host.wrapping import unwrap, wrap

NOTHING = catalogue.Members("")


def members_of(q):
    """Catalogue members of a PySide object; those of a stand-in, or none for Qt's own classes."""
    return getattr(type(q), "catalogue_members", NOTHING)


def argument_count(function):
    """How many signal arguments PythonQt passes: those of a plain function or method, all (None) for any other callable."""
    bound = isinstance(function, types.MethodType)
    plain = function.__func__ if bound else function
    if not isinstance(plain, types.FunctionType) or plain.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return plain.__code__.co_argcount - bound


def guarded(function):
    """The function as a slot: trimmed and wrapped arguments, exceptions recorded instead of raised."""
    count = argument_count(function)

    def slot(*arguments):
        try:
            return unwrap(function(*[wrap(a) for a in arguments[:count]]))
        except Exception:
            errors.record()

    return slot


class Signal:
    """`object.signalName`: can be connected, disconnected, emitted, called."""

    def __init__(self, owner, signature):
        self.owner, self.signature = owner, signature

    def connect(self, *target):
        """Connect to a callable, or to an object and the text of its slot."""
        return connect(self.owner, self.signature, *target)

    def disconnect(self, *target):
        """Disconnect one target, or all."""
        return disconnect(self.owner, self.signature, *target)

    def emit(self, *arguments):
        """Send the signal."""
        emit(self.owner._q, self.signature, *arguments)

    __call__ = emit


def emit(q, signature, *arguments):
    """Send a signal of a stand-in (there is no native one) or of a Qt object."""
    if signature not in members_of(q).signals:
        getattr(q, signature.split("(")[0]).emit(*[unwrap(a) for a in arguments])
    elif not q.signalsBlocked():
        for _, slot in list(_connections(q, signature)):
            slot(*arguments)


def _connections(q, signature):
    return q.__dict__.setdefault("_connections", {}).setdefault(signature, [])


def _normalized(signature):
    return re.sub(r"const |[\s&]", "", signature) if "unsigned" not in signature else signature


def _native_index(q, signature):
    return q.metaObject().indexOfSignal(signature) if isinstance(q, QtCore.QObject) else -1


def native_signature(q, name):
    """Signature of a Qt signal with this name, the longest: not the clone for default arguments."""
    meta = q.metaObject()
    methods = [meta.method(i) for i in range(meta.methodCount())]
    found = [bytes(m.methodSignature()).decode() for m in methods if m.methodType() == QtCore.QMetaMethod.Signal and bytes(m.name()).decode() == name]
    return max(found, key=len)


def _resolve(owner, signature, target):
    """(PySide object, normalized signature, native?, callable or None); refuses a signal that does not exist."""
    q, signature = owner._q, _normalized(signature)
    native = _native_index(q, signature) >= 0
    if not native and signature not in members_of(q).signals:  # PythonQt returns False and writes a line to stderr, which nobody reads
        raise ValueError(f"{type(owner).__name__} has no signal '{signature}'")
    function = getattr(target[0], target[1].split("(")[0]) if len(target) > 1 else target[0] if target else None
    return q, signature, native, function.emit if isinstance(function, Signal) else function


def connect(owner, signature, *target):
    """owner.connect("signal(type)", callable) or (..., receiver, "slot(type)"); ValueError for an unknown signal."""
    q, signature, native, function = _resolve(owner, signature, target)
    if not callable(function):
        raise TypeError(f"connect: {function!r} is not callable")
    slot = guarded(function)
    _connections(q, signature).append((function, slot))
    if native:
        QtCore.QObject.connect(q, QtCore.SIGNAL(signature), slot)
    return True


def disconnect(owner, signature, *target):
    """Undo connect for one target, or for all without a target; returns whether there was one."""
    q, signature, native, function = _resolve(owner, signature, target)
    entries = _connections(q, signature)
    gone = [entry for entry in entries if function is None or entry[0] == function]
    for entry in gone:
        entries.remove(entry)
        if native:
            QtCore.QObject.disconnect(q, QtCore.SIGNAL(signature), entry[1])
    return bool(gone)


def connector(owner, what):
    """The bound `connect` or `disconnect` of a proxy."""
    return functools.partial(connect if what == "connect" else disconnect, owner)
