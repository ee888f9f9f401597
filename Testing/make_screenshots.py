"""The README's pictures: `python Testing/make_screenshots.py` runs the tutorial in the test host and writes Resources/Screenshots/*.png.

Left, what slice views show, drawn here from the scene's voxels (the host renders no views): image, strokes in full colour, preview pale.
Right, the panel, drawn by Qt; the Segment Editor in it is the host's stand-in.

`--screens FOLDER` writes other pictures instead: what a user of a small and of a large screen sees of the panel without scrolling, in a light
and in a dark theme, with a result.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "SparseSegSlicer")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
TARGET = ROOT / "Resources" / "Screenshots"
_ZOOM = 4
_SLICES = (20, 24)  # a painted one, and one between
_SECTIONS = ("engineSection", "inputsSection", "slicesSection", "trainSection", "resultSection")
_OPEN = ("inputsSection", "resultSection")  # at first
_SCREENS = ((1280, 720), (1500, 1000))
_PANEL_WIDTH, _AROUND = 500, 160  # pixels: a module's panel, and what title, menus, tool bars, data probe and status take of the height
_THEMES = {"light": ("#efefef", "#efefef"), "dark": ("#353535", "#2b2b2b")}  # buttons, window
_WINDOW = (-160, 320)


def main() -> None:
    from host.scene_host import SceneHost
    from host.slicer_host import Host

    scene = SceneHost()
    host = Host(scene)
    host.activate()
    code, widget, top = host.load_module(ROOT / "SparseSegSlicer" / "SparseSegSlicer.py")
    host.enter()
    if sys.argv[1:2] == ["--screens"]:
        screens(host, widget.panel, top, Path(sys.argv[2]))
    else:
        tutorial(host, code, widget.panel, top)
    host.close()
    scene.close()


def begin(host, panel, seconds: int) -> tuple:
    """The sample with its strokes, read; a run will take that long."""
    from SparseSegSlicerLib.scene.SamplePhantom import addPhantom

    ui = panel.ui
    volume, strokes = addPhantom()
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(strokes)
    ui.timeBudget.value = seconds
    host.spin(until=lambda: panel.controller.strokes is not None, timeout_s=30)
    return volume, strokes


def screens(host, panel, top, folder: Path) -> None:
    """With what growing makes of the strokes: the panel looks the same with a better result."""
    begin(host, panel, 15)
    host.click(panel.ui.segmentButton)
    host.spin(until=lambda: panel.controller.preview.labels is not None, timeout_s=300)
    panel.controller.cancel()
    host.spin(0.5)
    area = _scrollArea(top)
    folder.mkdir(parents=True, exist_ok=True)
    for theme, colors in _THEMES.items():
        for size in _SCREENS:
            screen(host, panel, area, size, colors).save(str(folder / f"{theme}-{size[0]}x{size[1]}.png"))
    host.unload()  # while the area, which owns the panel now, is there


def _scrollArea(top):
    """The panel as Slicer's main window holds it."""
    from PySide6 import QtCore, QtWidgets

    from host import standin

    area = QtWidgets.QScrollArea()
    area.setWidgetResizable(True)
    area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarAlwaysOff)
    area.setWidget(standin.behind(top))
    area.show()
    return area


def screen(host, panel, area, size: tuple[int, int], colors: tuple[str, str]):
    """What is seen of the panel without scrolling, in a theme, beside the views."""
    from PySide6 import QtGui, QtWidgets

    QtWidgets.QApplication.setPalette(QtGui.QPalette(*(QtGui.QColor(color) for color in colors)))
    area.resize(_PANEL_WIDTH, size[1] - _AROUND)
    host.spin(0.3)
    panel.update()
    host.spin(0.3)
    sheet = QtGui.QImage(*size, QtGui.QImage.Format.Format_RGB32)
    sheet.fill(QtGui.QColor(colors[1]))
    views = picture(panel.controller).scaledToHeight(size[1] - _AROUND)
    painter = QtGui.QPainter(sheet)
    painter.drawPixmap(0, _AROUND // 2, area.grab())
    painter.drawImage(_PANEL_WIDTH + 12, _AROUND // 2, views)
    painter.end()
    return sheet


def tutorial(host, code, panel, top) -> None:
    from SparseSegSlicerLib.session.Controller import State
    from SparseSegSlicerLib.session.EngineSetup import EngineState

    controller, ui = panel.controller, panel.ui
    host.spin(until=lambda: panel.install.setup.state is EngineState.READY, timeout_s=300)
    volume, strokes = begin(host, panel, 40)
    save(host, panel, top, "tutorial-1-paint", ("inputsSection", "slicesSection"))
    host.click(ui.segmentButton)
    host.spin(until=lambda: controller.state is State.TRAINING and len(controller.report.curve) > 30 and controller.report.estimate, timeout_s=60)
    save(host, panel, top, "tutorial-2-train", ("trainSection",))
    host.spin(until=lambda: controller.state is State.RESULT, timeout_s=120)
    save(host, panel, top, "tutorial-3-preview", ("trainSection", "resultSection"))
    host.click(ui.applyButton)
    host.spin(until=lambda: not controller.isApplying, timeout_s=60)
    save(host, panel, top, "tutorial-4-apply", ("inputsSection", "resultSection"))
    save_effect(host, code, volume, strokes)


def save_effect(host, code, volume, strokes) -> None:
    """The session as an effect of Slicer's own Segment Editor."""
    import slicer

    code.registerEffect()
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLSegmentEditorNode(host.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setMRMLScene(host.scene)
    editor.setSegmentationNode(strokes)
    editor.setSourceVolumeNode(volume)
    editor.setEffectNameOrder(["Paint", "Draw", "Erase", "Sparse Segmentation"])
    editor.unorderedEffectsVisible = False
    editor.setActiveEffectByName("Sparse Segmentation")
    host.spin(0.3)
    host.screenshot(editor, TARGET / "segment-editor-effect.png", width=480)


def save(host, panel, top, name: str, sections: tuple[str, ...]) -> None:
    """The slices beside the panel, in which only these sections are open."""
    from PySide6 import QtGui

    for section in _SECTIONS:
        getattr(panel.ui, section).collapsed = section not in sections
    host.spin(0.3)
    panel.update()
    shot = QtGui.QImage(str(host.screenshot(top, TARGET / f"{name}.png", width=480)))
    views = picture(panel.controller)
    sheet = QtGui.QImage(views.width() + shot.width() + 12, max(views.height(), shot.height()), QtGui.QImage.Format.Format_RGB32)
    sheet.fill(QtGui.QColor("#202020"))
    painter = QtGui.QPainter(sheet)
    painter.drawImage(0, 0, views)
    painter.drawImage(views.width() + 12, 0, shot)
    painter.end()
    sheet.save(str(TARGET / f"{name}.png"))
    for section in _SECTIONS:
        getattr(panel.ui, section).collapsed = section not in _OPEN
    host.spin(0.1)


def picture(controller):
    """Two axial slices, one above the other, patient's right on the left."""
    from PySide6 import QtGui

    from SparseSegSlicerLib.scene.Grids import volumeArray

    rows = [_slice(controller, volumeArray(controller.volumeNode)[index], index) for index in _SLICES]
    rgb = np.ascontiguousarray(np.concatenate(rows).repeat(_ZOOM, 0).repeat(_ZOOM, 1))
    return QtGui.QImage(rgb.data, rgb.shape[1], rgb.shape[0], 3 * rgb.shape[1], QtGui.QImage.Format.Format_RGB888).copy()


def _slice(controller, image: np.ndarray, index: int) -> np.ndarray:
    low, high = _WINDOW
    rgb = np.repeat((255 * np.clip((image - low) / (high - low), 0, 1))[..., None], 3, -1)
    preview = controller.preview
    if preview.labels is not None:
        for value, segment in enumerate(preview.classes.segments, start=1):
            _tint(rgb, preview.labels[index] == value, segment.color, 0.8 if controller.isApplied else 0.45)
    if controller.strokes is not None:
        classes = controller.strokes.classes
        for value, segment in enumerate([classes.background, *classes.segments], start=1):
            if segment is not None:
                _tint(rgb, controller.strokes.annotation[index] == value, segment.color, 0.5 if value == 1 else 1.0)
    return rgb.astype(np.uint8)


def _tint(rgb: np.ndarray, mask: np.ndarray, color, opacity: float) -> None:
    rgb[mask] = (1 - opacity) * rgb[mask] + opacity * 255 * np.array(color)


if __name__ == "__main__":
    main()
