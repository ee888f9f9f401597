"""A small live plot in a label: loss over steps, and the estimated Dice of each segment."""

import qt

from ..i18n import number
from ..i18n import tr as _
from .Theme import lineHeight

_LINES = 9  # its height, in lines of text


class Chart:
    """Follows the label's width, which the panel decides: the label asks for none, or a pixmap would keep the panel as wide as it once was."""

    def __init__(self, label) -> None:
        self._label, self._curve, self._colors = label, [], {}
        self._shown = None
        label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)

    def show(self, curve, colors) -> None:
        """curve: [(step, loss, {segment ID: Dice})]; colors: {segment ID: (name, RGB in 0..1)}."""
        self._curve, self._colors = curve, colors
        self.follow()

    def follow(self) -> None:
        """Draws where something is new: the curve, the label's size or its screen, the theme."""
        label, curve = self._label, self._curve
        line, ratio = lineHeight(label), label.devicePixelRatioF()
        key = (len(curve), curve[-1][0] if curve else 0, label.width, line, ratio, label.palette.color(qt.QPalette.Base).name())
        if key == self._shown:
            return
        self._shown = key
        width, height = max(label.width, 12 * line), _LINES * line
        label.minimumHeight = height
        pixmap = qt.QPixmap(round(width * ratio), round(height * ratio))
        pixmap.setDevicePixelRatio(ratio)
        pixmap.fill(label.palette.color(qt.QPalette.Base))
        painter = qt.QPainter()
        painter.begin(pixmap)
        painter.setRenderHint(qt.QPainter.Antialiasing)
        try:
            self._draw(painter, width, height, line)
        finally:
            painter.end()
        label.setPixmap(pixmap)

    def _draw(self, painter, width, height, line) -> None:
        curve, ink = self._curve, self._label.palette.color(qt.QPalette.Text)
        left, right, top, bottom = 3 * line, width - 2 * line, line // 2, height - 2 * line
        painter.setPen(qt.QPen(self._label.palette.color(qt.QPalette.Mid)))
        painter.drawRect(left, top, right - left, bottom - top)
        painter.setPen(qt.QPen(ink))
        painter.drawText(left, height - line // 2, self._caption())
        if len(curve) < 2:
            return
        last, highest = curve[-1][0] or 1, max(loss for __, loss, __ in curve) or 1
        painter.drawText(line // 4, top + line, number(highest))
        painter.drawText(line // 4, bottom, "0")
        painter.drawText(right + line // 4, top + line, "1")
        painter.drawText(right + line // 4, bottom, "0")
        x = [left + (right - left) * step / last for step, __, __ in curve]
        _line(painter, x, [bottom - (bottom - top) * loss / highest for __, loss, __ in curve], ink, line / 8)
        for sid, (__, rgb) in self._colors.items():
            points = [(a, e[sid]) for a, (__, __, e) in zip(x, curve, strict=False) if sid in e]
            color = qt.QColor(*(round(255 * c) for c in rgb))
            _line(painter, [a for a, __ in points], [bottom - (bottom - top) * d for __, d in points], color, line / 8)

    def _caption(self) -> str:
        if len(self._curve) < 2:
            return _("Step 0")
        return _("Step 0 to {last}: loss (left), estimated Dice (right)").format(last=number(int(self._curve[-1][0])))


def _line(painter, x, y, color, width) -> None:
    pen = qt.QPen(color)
    pen.setWidthF(width)
    painter.setPen(pen)
    for n in range(1, len(x)):
        painter.drawLine(round(x[n - 1]), round(y[n - 1]), round(x[n]), round(y[n]))
