"""Reads .ui files: stand-ins for custom widgets; their properties and all connections are applied with PythonQt's rules."""

import xml.etree.ElementTree as ET
from pathlib import Path

from PySide6 import QtCore, QtUiTools

from host import catalogue, pythonqt
from host.standin import standin
from host.wrapping import wrap


class QUiLoader(QtUiTools.QUiLoader):
    """As qt.QUiLoader; AttributeError or ValueError where the file names a property or a signal that does not exist."""

    def createWidget(self, class_name, parent=None, name=""):
        """Qt's own widget, or the stand-in of a custom one."""
        if not catalogue.known(class_name):
            return super().createWidget(class_name, parent, name)
        widget = standin(class_name)(*([parent] if parent is not None else []))
        widget.setObjectName(name)
        return widget

    def load(self, file, parent=None):
        """The top widget; custom properties and connections are taken out of the XML, since Qt's loader does not know them."""
        content = bytes(file.readAll().data()) if isinstance(file, QtCore.QIODevice) else Path(file).read_bytes()
        root = ET.fromstring(content)
        properties, links = _take_properties(root), _take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        top = super().load(buffer, parent)

        def find(name):
            found = top if top.objectName() == name else top.findChild(QtCore.QObject, name)
            if found is None:
                raise ValueError(f".ui file: no object named '{name}'")
            return wrap(found)

        for name, element in properties:
            setattr(find(name), element.get("name"), _value(element, find(name)))
        for sender, signal, receiver, slot in links:
            find(sender).connect(signal, find(receiver), slot)
        return top


def _take_properties(root):
    taken = []
    for widget in root.iter("widget"):
        if catalogue.known(widget.get("class")):
            known = catalogue.members(widget.get("class")).properties
            for element in [p for p in widget.findall("property") if p.get("name") in known]:
                taken.append((widget.get("name"), element))
                widget.remove(element)
    return taken


def _take_connections(root):
    links = []
    for connections in root.findall("connections"):
        links += [tuple(c.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")) for c in connections]
        root.remove(connections)
    return links


def _value(element, widget):
    """The value of a <property> element."""
    value = element[0]
    text = value.text or ""
    if value.tag == "stringlist":
        return tuple(item.text or "" for item in value)
    if value.tag in ("enum", "set"):
        return sum({getattr(widget, part.split("::")[-1]) for part in text.split("|")})
    return {"bool": lambda t: t == "true", "double": float, "number": int}.get(value.tag, str)(text)


pythonqt.REPLACED["QUiLoader"] = QUiLoader
