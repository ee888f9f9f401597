"""Draws the segment editor's stand-in: a grey box with the segments and the names of the effects, for screenshots."""

from PySide6 import QtCore, QtGui

ROW = 22


def size(segment_count):
    """Room for the segments, at least three, and a row of effects."""
    return QtCore.QSize(300, ROW * (max(3, segment_count) + 2) + 16)


def draw(widget, segments, effect_names, active_effect, below):
    """`segments`: (vtkSegment, selected) from top to bottom. `below`: height that is left free for the active effect's options."""
    painter = QtGui.QPainter(widget)
    painter.fillRect(widget.rect(), QtGui.QColor("#e6e6e6"))
    painter.setPen(QtGui.QColor("#8a8a8a"))
    painter.drawRect(widget.rect().adjusted(0, 0, -1, -1))
    painter.setPen(QtGui.QColor("#202020"))
    for row, (segment, selected) in enumerate(segments):
        _draw_segment(painter, QtCore.QRect(4, 6 + row * ROW, widget.width() - 8, ROW), segment, selected)
    left = 8
    for name in effect_names:
        box = QtCore.QRect(left, widget.height() - below - ROW - 4, painter.fontMetrics().horizontalAdvance(name) + 14, ROW - 2)
        painter.fillRect(box, QtGui.QColor("#9cc3f5" if name == active_effect else "#f8f8f8"))
        painter.drawText(box, QtCore.Qt.AlignCenter, name)
        left = box.right() + 5
    painter.end()


def _draw_segment(painter, row, segment, selected):
    if selected:
        painter.fillRect(row, QtGui.QColor("#cfe0f7"))
    painter.fillRect(QtCore.QRect(row.left() + 6, row.top() + 4, 14, 14), QtGui.QColor.fromRgbF(*segment.GetColor()))
    painter.drawText(row.adjusted(28, 0, 0, 0), QtCore.Qt.AlignVCenter, segment.GetName())
