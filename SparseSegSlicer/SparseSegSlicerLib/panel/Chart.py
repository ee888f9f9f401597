"""A small live plot in a label: loss over steps, and the estimated Dice of each segment."""

import qt

_MARGIN = 34
_LOSS_COLOR = "#34495e"


class Chart:
    def __init__(self, label) -> None:
        self._label = label
        self._shown = None

    def show(self, curve, colors) -> None:
        """curve: [(step, loss, {segment ID: Dice})]; colors: {segment ID: (name, RGB in 0..1)}. Drawn only when something is new."""
        key = (len(curve), curve[-1][0] if curve else 0, self._label.width)
        if key == self._shown:
            return
        self._shown = key
        width, height = max(240, self._label.width), 150
        pixmap = qt.QPixmap(width, height)
        pixmap.fill(qt.QColor("white"))
        painter = qt.QPainter()
        painter.begin(pixmap)
        painter.setRenderHint(qt.QPainter.Antialiasing)
        try:
            self._draw(painter, curve, colors, width, height)
        finally:
            painter.end()
        self._label.setPixmap(pixmap)

    def _draw(self, painter, curve, colors, width, height) -> None:
        left, right, top, bottom = _MARGIN, width - _MARGIN, 8, height - 20
        painter.setPen(qt.QPen(qt.QColor("#b0b8c4")))
        painter.drawRect(left, top, right - left, bottom - top)
        painter.setPen(qt.QPen(qt.QColor("#555555")))
        painter.drawText(left, height - 5, "step 0" if len(curve) < 2 else f"step 0 to {int(curve[-1][0])}: loss (left), estimated Dice (right)")
        if len(curve) < 2:
            return
        last = curve[-1][0] or 1
        highest = max(loss for _, loss, _ in curve) or 1
        painter.drawText(2, top + 10, f"{highest:.2g}")
        painter.drawText(2, bottom, "0")
        painter.drawText(right + 4, top + 10, "1.0")
        painter.drawText(right + 4, bottom, "0")
        x = [left + (right - left) * step / last for step, _, _ in curve]
        _line(painter, x, [bottom - (bottom - top) * loss / highest for _, loss, _ in curve], _LOSS_COLOR, 2)
        for sid, (_, rgb) in colors.items():
            points = [(a, e[sid]) for a, (_, _, e) in zip(x, curve, strict=False) if sid in e]
            color = "#{:02x}{:02x}{:02x}".format(*tuple(round(255 * c) for c in rgb))
            _line(painter, [a for a, _ in points], [bottom - (bottom - top) * d for _, d in points], color, 2)


def _line(painter, x, y, color, width) -> None:
    pen = qt.QPen(qt.QColor(color))
    pen.setWidth(width)
    painter.setPen(pen)
    for n in range(1, len(x)):
        painter.drawLine(round(x[n - 1]), round(y[n - 1]), round(x[n]), round(y[n]))
