"""Draws the segment editor's stand-in: a box with the segments and the names of the effects, for screenshots.

As large as Slicer's own, measured in pictures of it: buttons above the table, room for seven segments, options below while an effect is active.
"""

from PySide6 import QtCore, QtGui

ROW = 22
_BUTTONS, _TABLE_ROWS, _OPTIONS = 36, 8, 215
_WIDTH = 350


def size(segment_count, active_effect):
    """What Slicer's editor takes, whatever it shows."""
    table = ROW * (max(_TABLE_ROWS, segment_count) + 1)
    return QtCore.QSize(_WIDTH, _BUTTONS + table + ROW + 16 + (_OPTIONS if active_effect else 0))


def draw(widget, segments, effect_names, active_effect, below):
    """`segments`: (vtkSegment, selected) from top to bottom. `below`: height that the active effect's own options take."""
    painter, palette = QtGui.QPainter(widget), widget.palette()
    painter.fillRect(widget.rect(), palette.base())
    painter.setPen(palette.color(QtGui.QPalette.Mid))
    painter.drawRect(widget.rect().adjusted(0, 0, -1, -1))
    painter.setPen(palette.color(QtGui.QPalette.Text))
    for row, (segment, selected) in enumerate(segments):
        _draw_segment(painter, QtCore.QRect(4, _BUTTONS + row * ROW, widget.width() - 8, ROW), segment, selected, palette)
    left = 8
    for name in effect_names:
        box = QtCore.QRect(left, 6, painter.fontMetrics().horizontalAdvance(name) + 14, ROW - 2)
        painter.fillRect(box, palette.highlight() if name == active_effect else palette.button())
        painter.setPen(palette.color(QtGui.QPalette.HighlightedText if name == active_effect else QtGui.QPalette.ButtonText))
        painter.drawText(box, QtCore.Qt.AlignCenter, name)
        left = box.right() + 5
    if active_effect and not below:
        painter.setPen(palette.color(QtGui.QPalette.Text))
        painter.drawText(10, widget.height() - _OPTIONS + 16, f"{active_effect}: options and masking")
    painter.end()


def _draw_segment(painter, row, segment, selected, palette):
    if selected:
        painter.fillRect(row, palette.highlight())
    painter.setPen(palette.color(QtGui.QPalette.HighlightedText if selected else QtGui.QPalette.Text))
    painter.fillRect(QtCore.QRect(row.left() + 6, row.top() + 4, 14, 14), QtGui.QColor.fromRgbF(*segment.GetColor()))
    painter.drawText(row.adjusted(28, 0, 0, 0), QtCore.Qt.AlignVCenter, segment.GetName())
