"""Draw the extension's icons and the sample data's thumbnail: `python Testing/draw_icons.py` (needs PySide6).

Everything is drawn from the numbers below, so the pictures are ours and can be drawn again.
"""

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPainterPath, QPen, QPolygonF, QTransform

ROOT = Path(__file__).resolve().parents[1]
ICONS = [ROOT / "Resources" / "SparseSegSlicer.png", ROOT / "SparseSegSlicer" / "Resources" / "Icons" / "SparseSegSlicer.png"]
THUMBNAIL = ROOT / "SparseSegSlicer" / "Resources" / "Icons" / "SparseSegPhantom.png"

SLICE_FILL = QColor(132, 178, 230, 178)
SLICE_EDGE = QColor(48, 98, 160)
ORGAN_LIGHT = QColor(255, 158, 110)
ORGAN_DARK = QColor(196, 66, 44)
ORGAN_EDGE = QColor(140, 40, 28)
ORGAN_STROKE = QColor(240, 92, 52)
OTHER_STROKE = QColor(16, 122, 96)
FIRST_LABEL = QColor(255, 176, 32)
SECOND_LABEL = QColor(240, 92, 52)
BACKGROUND_LABEL = QColor(64, 170, 240)


def canvas(width, height):
    image = QImage(width, height, QImage.Format.Format_ARGB32)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    return image, painter


def smooth(points, closed=False):
    """A Catmull-Rom curve through the points."""
    points = [QPointF(x, y) for x, y in points]
    around = [points[-1], *points, points[0], points[1]] if closed else [points[0], *points, points[-1]]
    path = QPainterPath(around[1])
    for before, start, end, after in zip(around, around[1:], around[2:], around[3:], strict=False):
        path.cubicTo(start + (end - before) / 6, end - (after - start) / 6, end)
    return path


def mix(dark, light, share):
    return QColor(*(round(d + (n - d) * share) for d, n in zip(dark.getRgb(), light.getRgb(), strict=True)))


def stroke(painter, points, colour, width):
    pen = QPen(colour, width, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin)
    painter.strokePath(smooth(points), pen)


def draw_slice(painter, x, y, half_width, half_height, strokes=()):
    """One image slice seen from above at a slant; strokes are (points, colour) in slice coordinates from -1 to 1."""
    tilt = QTransform(half_width / 2, half_height / 2, -half_width / 2, half_height / 2, x, y)
    corners = [tilt.map(QPointF(u, v)) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    painter.setPen(QPen(SLICE_EDGE, 3, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
    painter.setBrush(SLICE_FILL)
    painter.drawPolygon(QPolygonF(corners))
    for points, colour in strokes:
        mapped = [tilt.map(QPointF(u, v)) for u, v in points]
        stroke(painter, [(p.x(), p.y()) for p in mapped], colour, 8)


def draw_organ(painter, x, y, size, turn):
    """A kidney-like solid: nested outlines that grow lighter towards a highlight at its upper right."""
    convex = [(0.1, -1.0), (0.62, -0.66), (0.76, 0.0), (0.58, 0.68), (0.04, 1.0)]
    concave = [(-0.42, 0.76), (-0.3, 0.34), (-0.2, 0.0), (-0.38, -0.42), (-0.34, -0.84)]
    body = smooth(convex + concave, closed=True)
    place = QTransform().translate(x, y).rotate(turn).scale(size, size)
    painter.setPen(QPen(ORGAN_EDGE, 3, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
    painter.setBrush(ORGAN_DARK)
    painter.drawPath(place.map(body))
    painter.setClipPath(place.map(body))
    painter.setPen(Qt.PenStyle.NoPen)
    layers = 48
    for layer in range(layers):
        share = layer / (layers - 1)
        inner = QTransform(place).translate(0.34 * share, -0.3 * share).scale(1 - 0.86 * share, 1 - 0.86 * share)
        painter.setBrush(mix(ORGAN_DARK, ORGAN_LIGHT, share**0.8))
        painter.drawPath(inner.map(body))
    painter.setClipping(False)


def draw_icon():
    image, painter = canvas(128, 128)
    top = [([(-0.6, 0.2), (-0.25, -0.25), (0.1, 0.05), (0.45, -0.35)], ORGAN_STROKE), ([(-0.55, 0.72), (0.0, 0.62), (0.4, 0.4)], OTHER_STROKE)]
    middle = [([(-0.75, 0.78), (-0.2, 0.74)], ORGAN_STROKE)]
    for y, strokes in ((78, ()), (55, middle), (32, top)):
        draw_slice(painter, 60, y, 57, 29, strokes)
    draw_organ(painter, 92, 84, 40, 24)
    painter.end()
    return image


def fill(painter, colour, points):
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    painter.drawPath(smooth(points, closed=True))


def oval(painter, colour, x, y, half_width, half_height):
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(colour)
    painter.drawEllipse(QPointF(x, y), half_width, half_height)


def grey(level):
    return QColor(level, level, level)


def draw_thumbnail():
    """A stylised axial slice: body, spine, two organs, and a few strokes on each and on the background."""
    image, painter = canvas(260, 280)
    painter.fillRect(QRectF(0, 0, 260, 280), grey(10))
    oval(painter, grey(66), 130, 138, 120, 98)  # fat
    oval(painter, grey(102), 130, 138, 108, 86)  # muscle
    oval(painter, grey(84), 130, 134, 96, 74)  # cavity
    oval(painter, grey(112), 130, 198, 46, 20)  # muscle of the back
    oval(painter, grey(226), 130, 184, 22, 18)  # vertebra
    oval(painter, grey(150), 130, 182, 15, 12)
    oval(painter, grey(200), 130, 206, 6, 13)
    oval(painter, grey(178), 142, 154, 10, 10)  # aorta
    for x, y in ((34, 118), (42, 178), (226, 118), (218, 178), (62, 80), (198, 80)):
        oval(painter, grey(214), x, y, 5, 8)  # ribs
    fill(painter, grey(140), [(48, 136), (56, 92), (96, 72), (146, 78), (158, 98), (128, 116), (108, 150), (76, 182), (54, 168)])  # organ A
    fill(painter, grey(184), [(176, 126), (200, 128), (210, 156), (196, 184), (174, 182), (178, 166), (184, 156), (176, 142)])  # organ B
    stroke(painter, [(66, 148), (70, 118), (94, 100), (124, 92)], FIRST_LABEL, 8)
    stroke(painter, [(78, 158), (90, 138)], FIRST_LABEL, 8)
    stroke(painter, [(192, 138), (199, 154), (191, 173)], SECOND_LABEL, 8)
    stroke(painter, [(170, 92), (190, 102), (202, 112)], BACKGROUND_LABEL, 8)
    stroke(painter, [(96, 214), (130, 224), (164, 214)], BACKGROUND_LABEL, 8)
    painter.end()
    return image


def main():
    for path in ICONS:
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_icon().save(str(path))
    draw_thumbnail().save(str(THUMBNAIL))


if __name__ == "__main__":
    main()
