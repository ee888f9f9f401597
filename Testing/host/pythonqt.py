"""Proxies that treat PySide objects as PythonQt treats Qt objects in Slicer.

An attribute is looked up as: attribute of a Python subclass, Q_PROPERTY, method, signal, enumeration, dynamic property, child by
objectName, else AttributeError. Unknown attributes cannot be set on C++ objects. `name` is objectName. Keyword arguments are refused.
Rules: PythonQtInstanceWrapper.cpp and PythonQtSignal.cpp.
"""

import enum
import operator

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

from host import catalogue, dialogs, wrapping
from host.signals import NOTHING, Signal, connector, guarded, members_of, native_signature
from host.wrapping import DEFAULTS, EnumInt, Wrapped, convert, fits, proxies, unwrap, wrap

MODULES = [QtCore, QtGui, QtWidgets]
REPLACED = {}  # class name -> our PySide subclass that `qt` gives instead, for example QUiLoader
MISSING = object()
standin_class = None  # set by standin: catalogue name -> PySide subclass
_proxy_classes = {}


def proxy_class(name):
    """The class that Python code sees under this name; AttributeError if Slicer (or Qt) has none."""
    if name not in _proxy_classes:
        native = REPLACED.get(name) or next((getattr(m, name) for m in MODULES if name[:1] == "Q" and hasattr(m, name)), None)
        pyside = standin_class(name) if catalogue.known(name) else native
        if not isinstance(pyside, type):
            raise AttributeError(f"no Qt class named '{name}'")
        _proxy_classes[name] = _make_class(name, pyside)
    return _proxy_classes[name]


def _make_class(name, pyside):
    """Event handlers are put into the class so that super().paintEvent(event) finds Qt's own."""
    handlers = {n: _handler(pyside, n) for n in dir(pyside) if n.endswith("Event") or n in ("event", "eventFilter")}
    return ProxyType(name, (Proxy,), {"_pyside": pyside, **handlers})


def _handler(pyside, name):
    def handler(self, *arguments):
        return wrap(getattr(pyside, name)(self._q, *[unwrap(a) for a in arguments]))

    return handler


def class_of(q):
    """The proxy class of a PySide object: of its catalogue name, or of the nearest class that Qt itself has."""
    name = getattr(type(q), "catalogue_name", None)
    if name:
        return proxy_class(name)
    own = next(c for c in type(q).__mro__ if c.__module__.startswith("PySide6") or c in REPLACED.values())
    if own.__name__ not in _proxy_classes:
        _proxy_classes[own.__name__] = _make_class(own.__name__, own)
    return _proxy_classes[own.__name__]


def _argument(value):
    """An argument of a native call; a Python function becomes a guarded slot."""
    return guarded(value) if callable(value) and not isinstance(value, (Wrapped, ProxyType)) else unwrap(value)


def _native_call(function):
    def call(*arguments):
        return wrap(function(*[_argument(a) for a in arguments]))

    return call


class EnumProxy:
    """A Qt enumeration: its values are integers."""

    def __init__(self, native):
        self._native = native

    def __getattr__(self, name):
        return wrap(getattr(self._native, name))

    def __call__(self, value):
        return wrap(self._native(int(value)))


class ProxyType(type):
    """Class attributes: enumerations, nested classes, static functions, unbound methods."""

    def pyside_class(cls):
        """The PySide class behind; for a Python subclass one that sends overridden virtual functions to the proxy."""
        if "_pyside" not in cls.__dict__:
            cls._pyside = _forwarding_class(cls)
        return cls.__dict__["_pyside"]

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        pyside = next(c.__dict__["_pyside"] for c in cls.__mro__ if "_pyside" in c.__dict__)
        known = getattr(pyside, "catalogue_members", NOTHING)
        if name in known.enums:
            return EnumInt(known.enums[name])
        if name in known.static:
            action = getattr(pyside, f"static_{name}", None)
            return (lambda *a: wrap(action(*a))) if action else lambda *a: DEFAULTS.get(known.static[name][0]["returns"])
        if name in dialogs.STATIC.get(pyside.__name__, ()):
            return lambda *a: dialogs.ask(pyside.__name__, name, *a)
        if name in ("connect", "disconnect"):
            return lambda owner, *a: getattr(owner, name)(*a)
        return cls._native(pyside, name)

    def _native(cls, pyside, name):
        value = getattr(getattr(pyside, "qt_base", pyside), name, None)
        if value is None:
            raise AttributeError(f"type object '{cls.__name__}' has no attribute '{name}'")
        if isinstance(value, enum.EnumMeta):
            return EnumProxy(value)
        if isinstance(value, type):
            return _proxy_classes.setdefault(value.__qualname__, _make_class(value.__name__, value))
        return _native_call(value) if callable(value) and not isinstance(value, enum.Enum) else wrap(value)


def _forwarding_class(cls):
    """Raises TypeError for the classes of Slicer and CTK: PythonQt has no shells for them, overriding has no effect there."""
    depth = next(i for i, c in enumerate(cls.__mro__) if "_pyside" in c.__dict__)
    base = cls.__mro__[depth].__dict__["_pyside"]
    overridden = {n for c in cls.__mro__[:depth] for n in vars(c) if not n.startswith("__") and callable(getattr(base, n, None))}
    if overridden and getattr(base, "catalogue_name", None):
        raise TypeError(f"{cls.__name__}: virtual functions of {base.catalogue_name} cannot be overridden in Python: {sorted(overridden)}")

    def forward(name):
        def virtual(q, *arguments):
            proxy = proxies.get(shiboken6.getCppPointer(q)[0])
            if type(proxy) is not cls:  # called from Qt's constructor, before the Python object is ready
                return getattr(base, name)(q, *arguments)
            return unwrap(getattr(proxy, name)(*[wrap(a) for a in arguments]))

        return virtual

    return type(cls.__name__, (base,), {name: forward(name) for name in overridden})


class Proxy(Wrapped, metaclass=ProxyType):
    """One Qt object, or a value such as QSize, as Python code in Slicer sees it."""

    def __init__(self, *arguments):
        pyside = type(self).pyside_class()
        name = getattr(pyside, "catalogue_name", None)
        if name and catalogue.classes()[name].get("python_constructor") is None:
            raise ValueError(f"{name} cannot be made in Python: it has no constructor there")
        object.__setattr__(self, "_q", pyside(*[_argument(a) for a in arguments]))
        if isinstance(self._q, QtCore.QObject):
            proxies[shiboken6.getCppPointer(self._q)[0]] = self

    def inherits(self, class_name):
        """QObject::inherits, for the classes of the catalogue too."""
        q = self._q
        own = [n for n, _ in catalogue.chain(getattr(type(q), "catalogue_name", ""))]
        return class_name in own or (isinstance(q, QtCore.QObject) and q.inherits(class_name))

    def __getattr__(self, name):
        if name == "_q":
            raise AttributeError("a subclass must call the constructor of its Qt class before it uses the object")
        q = self._q
        if isinstance(q, QtCore.QObject) and not shiboken6.isValid(q):
            raise ValueError(f"Trying to access '{name}' of a destroyed {type(self).__name__} object")
        for step in (_property, _special, _member, _native_member, _dynamic):
            value = step(self, q, name)
            if value is not MISSING:
                return value
        raise AttributeError(f"{type(self).__name__} has no attribute named '{name}'")

    def __setattr__(self, name, value):
        q = self._q
        own = isinstance(q, QtCore.QObject) and name in members_of(q).properties
        if isinstance(q, QtCore.QObject) and _set_property(self, q, "objectName" if name == "name" and not own else name, value):
            return
        if _proxy_classes.get(type(self).__name__) is not type(self):  # a Python subclass may have attributes of its own
            object.__setattr__(self, name, value)
        elif isinstance(q, QtCore.QObject) and name.encode() in [bytes(b) for b in q.dynamicPropertyNames()]:
            q.setProperty(name, unwrap(value))
        else:
            known = "cannot be overwritten on" if name in members_of(q).methods else "does not exist on"
            raise AttributeError(f"'{name}' {known} {type(self).__name__}, and creating new attributes on C++ objects is not allowed")

    def __eq__(self, other):
        return self is other or (isinstance(other, Proxy) and self._q == other._q)

    def __hash__(self):
        return id(self) if not isinstance(self._q, QtCore.QObject) else hash(self._q)

    def __bool__(self):
        return not isinstance(self._q, QtCore.QObject) or shiboken6.isValid(self._q)

    def __repr__(self):
        return f"{type(self).__name__} ({type(self).__name__} at: {id(self._q):#x})"


def _operator(function):
    def apply(self, other):
        return wrap(function(self._q, unwrap(other)))

    return apply


for _name in ("add", "sub", "mul", "truediv", "or_", "lt", "gt"):  # of values: QPointF, QKeySequence, QRect ...
    setattr(Proxy, f"__{_name.strip('_')}__", _operator(getattr(operator, _name)))


def _property(proxy, q, name):
    if not isinstance(q, QtCore.QObject):
        return MISSING
    if name in members_of(q).properties:
        return wrap(q.get_(name))
    if name == "name":
        return q.objectName()
    index = q.metaObject().indexOfProperty(name)
    return wrap(q.metaObject().property(index).read(q)) if index >= 0 else MISSING


def _special(proxy, q, name):
    """Functions that PySide has in another form than PythonQt."""
    if name in ("exec", "exec_") and isinstance(q, (QtWidgets.QDialog, QtWidgets.QMenu)):
        content = [getattr(q, n)() for n in ("windowTitle", "text", "informativeText") if hasattr(q, n)]
        return lambda *a: dialogs.ask(proxy.className(), "exec", *content)
    if not isinstance(q, QtCore.QObject):
        return MISSING
    if name in ("connect", "disconnect"):
        return connector(proxy, name)
    known = members_of(q).properties
    return {
        "property": lambda n: wrap(q.get_(n) if n in known else q.property(n)),
        "setProperty": lambda n, value: (setattr(proxy, n, value) is None) if n in known else q.setProperty(n, unwrap(value)),
        "findChildren": lambda kind=None, n=None: _children(q, kind, n),
        "findChild": lambda kind=None, n=None: next(iter(_children(q, kind, n)), None),
        "className": lambda: getattr(type(q), "catalogue_name", None) or q.metaObject().className(),
        "delete": lambda: shiboken6.delete(q),
    }.get(name, MISSING)


def _children(q, kind, object_name):
    kind = getattr(kind, "__name__", kind)
    found = [wrap(c) for c in q.findChildren(QtCore.QObject) if object_name in (None, c.objectName())]
    return tuple(c for c in found if kind is None or c.inherits(kind))


def _member(proxy, q, name):
    """Methods, signals and enumeration values that the catalogue lists for a stand-in."""
    known = members_of(q)
    if name in known.methods:
        return lambda *a: wrap(q.call_(name, a))
    signature = known.signal_named(name)
    if signature:
        return Signal(proxy, signature)
    return EnumInt(known.enums[name]) if name in known.enums else MISSING


def _native_member(proxy, q, name):
    """What Qt's own class has; the Python code of a stand-in is not reachable."""
    source = getattr(type(q), "qt_base", type(q))
    name = name if hasattr(source, name) else name.removesuffix("_")  # exec_, print_
    if not hasattr(source, name) or name.startswith("__"):
        return MISSING
    value = getattr(q, name)
    if isinstance(value, QtCore.SignalInstance):
        return Signal(proxy, native_signature(q, name))
    if isinstance(value, enum.EnumMeta):
        return EnumProxy(value)
    return _native_call(value) if callable(value) and not isinstance(value, enum.Enum) else wrap(value)


def _dynamic(proxy, q, name):
    if not isinstance(q, QtCore.QObject):
        return MISSING
    if name.encode() in [bytes(b) for b in q.dynamicPropertyNames()]:
        return wrap(q.property(name))
    child = next((c for c in q.children() if c.objectName() == name), None)
    return MISSING if child is None else wrap(child)


def _set_property(proxy, q, name, value):
    """True if there is such a property; AttributeError where it is read-only or of another type."""
    index = q.metaObject().indexOfProperty(name)
    ours = members_of(q).properties.get(name)
    if ours is None and index < 0:
        return False
    native = q.metaObject().property(index)
    writable, wanted = (ours.get("write"), ours["type"]) if ours else (native.isWritable(), native.typeName())
    if not writable:
        raise AttributeError(f"Property '{name}' of {type(proxy).__name__} object is not writable")
    accepted = fits(value, wanted)
    if accepted and ours:
        q.set_(name, convert(value, wanted))
    elif not accepted or not native.write(q, unwrap(convert(value, wanted))):
        raise AttributeError(f"Property '{name}' of type '{wanted}' does not accept {value!r} ({type(value).__name__})")
    return True


wrapping.proxy_class_of = class_of
