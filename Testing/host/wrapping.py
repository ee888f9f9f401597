"""Between PySide's objects and what Python code sees in Slicer: proxies, integers for enumerations, tuples for lists."""

import enum
import math
import operator
import re

import shiboken6
from PySide6 import QtCore


class Wrapped:
    """Base of all proxies; `_q` is PySide's object."""


class EnumInt(int):
    """Enumeration values are integers in PythonQt; `member` is PySide's value, needed to hand it back."""

    member = None

    @classmethod
    def of(cls, member):
        """The integer of PySide's enumeration member; members without a number stay as they are."""
        if not isinstance(member.value, int):
            return member
        value = cls(member.value)
        value.member = member
        return value

    def _combine(self, other, operation):
        mine, others = self.member, getattr(other, "member", None)
        if mine is not None and type(mine) is type(others):
            return EnumInt.of(operation(mine, others))
        return operation(int(self), int(other))

    def __or__(self, other):
        return self._combine(other, operator.or_)

    def __and__(self, other):
        return self._combine(other, operator.and_)


proxies = {}  # address of a QObject -> its proxy: the same object gives the same proxy, Python attributes included
proxy_class_of = None  # set by pythonqt: PySide object -> proxy class


def wrap(value):
    """What Python code in Slicer would see of a value that comes from Qt."""
    if isinstance(value, enum.Enum):
        return EnumInt.of(value)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return tuple(wrap(item) for item in value)
    if not isinstance(value, shiboken6.Object):
        return value
    address = shiboken6.getCppPointer(value)[0] if isinstance(value, QtCore.QObject) else None
    known = proxies.get(address)
    if known is not None and shiboken6.isValid(known._q):
        return known
    proxy = object.__new__(proxy_class_of(value))
    object.__setattr__(proxy, "_q", value)
    if address is not None:
        proxies[address] = proxy
    return proxy


def unwrap(value):
    """What PySide takes for a value of Python code in Slicer."""
    if isinstance(value, Wrapped):
        return value._q
    if isinstance(value, EnumInt):
        return int(value) if value.member is None else value.member
    if isinstance(value, type) and issubclass(value, Wrapped):
        return value.pyside_class()
    if isinstance(value, (list, tuple)):
        return [unwrap(item) for item in value]
    return value


DEFAULTS = {"bool": False, "int": 0, "double": 0.0, "float": 0.0, "QString": "", "QStringList": ()}


def convert(value, wanted):
    """A value as the C++ type named `wanted`, by PythonQt's non-strict rules; stricter in one point: None is no QString.

    Raises TypeError or ValueError where PythonQt would refuse.
    """
    if wanted == "QString" and value is not None:
        return value if isinstance(value, str) else str(value)
    if wanted in ("double", "float", "qreal") and not isinstance(value, (str, bytes)):
        return float(value)
    if wanted in ("int", "uint", "long") and not isinstance(value, EnumInt):
        return math.floor(value) if type(value) is float else operator.index(value)
    if wanted == "bool":
        return bool(value)
    if wanted == "QStringList" and not isinstance(value, (str, bytes)):
        return tuple(str(item) for item in value)
    if wanted in ("QString", "QStringList", "double", "float") or not _right_pointer(value, wanted):
        raise TypeError(f"{value!r} is no {wanted}")
    return value


def _right_pointer(value, wanted):
    """False only for a pointer type which the value does not match; None matches every pointer."""
    name = wanted.removesuffix("*")
    if value is None or name == wanted:
        return True
    if name.startswith("vtk"):
        return hasattr(value, "IsA") and bool(value.IsA(name))
    if re.match(r"(q|Q|ctk)\w+$", name):
        return isinstance(value, Wrapped) and value.inherits(name)
    return True


def fits(value, wanted):
    """Whether convert takes the value."""
    try:
        convert(value, wanted)
    except (TypeError, ValueError):
        return False
    return True
