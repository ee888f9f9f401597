"""Behaviour of the widgets that panels use most: scene widgets, collapsible button, slider, path line edit."""

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

from host.standin import StandIn, behaviour


@behaviour
class qMRMLWidget(StandIn):
    """Holds the scene and tells its children."""

    scene = None

    def do_setMRMLScene(self, scene):
        if scene is not self.scene:
            self.scene = scene
            self.emit_("mrmlSceneChanged(vtkMRMLScene*)", scene)

    def do_mrmlScene(self):
        return self.scene


@behaviour
class qSlicerWidget(qMRMLWidget):
    """The same for modules' panels."""


@behaviour
class qSlicerMarkupsPlaceWidget(qSlicerWidget):
    """Chooses the node that clicks into the views place, and whether they do."""

    def prepare(self):
        self.node, self.buttons = None, [QtWidgets.QToolButton(self), QtWidgets.QToolButton(self)]
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for button in self.buttons:
            layout.addWidget(button)
        self.values["buttonsVisible"] = True

    def set_buttonsVisible(self, visible):
        for button in self.buttons:
            button.setVisible(visible)

    def do_placeButton(self):
        return self.buttons[0]

    def do_deleteButton(self):
        return self.buttons[1]

    def do_currentNode(self):
        return self.node

    do_currentMarkupsNode = do_currentNode

    def do_setCurrentNode(self, node):
        self.node = node
        if node is None:
            self.values["placeModeEnabled"] = False

    def set_placeModeEnabled(self, enabled):
        self.values["placeModeEnabled"] = bool(enabled and self.node is not None and self.scene is not None)


@behaviour
class qSlicerAbstractModuleWidget(qMRMLWidget):
    """A module's panel; the host drives enter and exit."""

    module = python_widget = None
    ready = False  # setup has run to its end
    remake = None

    def do_module(self):
        return self.module

    def do_self(self):
        return self.python_widget

    def do_reload(self):
        """Makes the Python widget anew and sets it up; what is entered stays so, without a word to the new one."""
        self.remake()

    def do_enter(self):
        self.values["isEntered"] = True  # before the Python function, as qSlicerScriptedLoadableModuleWidget::enter
        if hasattr(self.python_widget, "enter"):
            self.python_widget.enter()

    def do_exit(self):
        self.values["isEntered"] = False
        if hasattr(self.python_widget, "exit"):
            self.python_widget.exit()


@behaviour
class ctkCollapsibleButton(StandIn):
    """A titled box; a click or `collapsed` hides its children."""

    HEADER = 26

    def prepare(self):
        self.values["collapsed"] = False
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(6, self.HEADER, 6, 4)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Maximum)
        self.toggled.connect(lambda on: self.set_("collapsed", not on))

    def set_collapsed(self, collapsed):
        self.setChecked(not collapsed)
        self._show_children()

    def _show_children(self):
        if not shiboken6.isValid(self):
            return
        for child in self.children():
            if child.isWidgetType():
                child.setVisible(not self.values["collapsed"])
        self.setMaximumHeight(self.HEADER if self.values["collapsed"] else 16777215)
        self.updateGeometry()

    def childEvent(self, event):
        if event.added() and event.child().isWidgetType() and self.values["collapsed"]:
            QtCore.QTimer.singleShot(0, self._show_children)

    def hitButton(self, position):
        return position.y() < self.HEADER

    def sizeHint(self):
        open_size = self.layout().totalSizeHint() if self.layout() else QtCore.QSize(80, self.HEADER)
        return QtCore.QSize(open_size.width(), self.HEADER) if self.values["collapsed"] else open_size

    def minimumSizeHint(self):
        return self.sizeHint()

    def paintEvent(self, event):
        painter, palette = QtGui.QPainter(self), self.palette()
        painter.fillRect(0, 0, self.width(), self.HEADER - 2, palette.button())
        painter.setPen(palette.color(QtGui.QPalette.Mid))
        painter.drawRect(0, 0, self.width() - 1, self.height() - 1)
        painter.setPen(palette.color(QtGui.QPalette.ButtonText))
        painter.drawText(8, 17, ("▸ " if self.values["collapsed"] else "▾ ") + self.text())


@behaviour
class ctkSliderWidget(StandIn):
    """A slider and a spin box that show one number."""

    STEPS = 1000

    def prepare(self):
        self.values.update(minimum=0.0, maximum=99.0, singleStep=1.0, pageStep=10.0, decimals=2, tracking=True, spinBoxVisible=True)
        self.slider, self.box = QtWidgets.QSlider(QtCore.Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        self.box.setRange(0, 99)
        self.slider.setRange(0, self.STEPS)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.slider)
        layout.addWidget(self.box)
        self.box.valueChanged.connect(self._changed)
        self.slider.sliderMoved.connect(lambda step: self.box.setValue(self.box.minimum() + step / self.STEPS * self._range()))

    def _range(self):
        return self.box.maximum() - self.box.minimum()

    def _changed(self, value):
        self.slider.setValue(round((value - self.box.minimum()) / (self._range() or 1) * self.STEPS))
        self.emit_("valueChanged(double)", value)

    def get_value(self):
        return self.box.value()

    def set_value(self, value):
        self.box.setValue(value)

    def set_minimum(self, value):
        self.box.setMinimum(value)

    def set_maximum(self, value):
        self.box.setMaximum(value)

    def set_decimals(self, value):
        self.box.setDecimals(value)

    def set_singleStep(self, value):
        self.box.setSingleStep(value)

    def set_suffix(self, text):
        self.box.setSuffix(text)

    def set_prefix(self, text):
        self.box.setPrefix(text)

    def set_spinBoxVisible(self, visible):
        self.box.setVisible(visible)


@behaviour
class ctkPathLineEdit(StandIn):
    """A line edit for a path, with a button that opens a (scripted) file dialog."""

    def prepare(self):
        self.values.update(showBrowseButton=True, showHistoryButton=True, filters=0, options=0)
        self.line, self.button = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        self.button.setText("...")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.line)
        layout.addWidget(self.button)
        self.line.textChanged.connect(lambda text: self.emit_("currentPathChanged(QString)", text))

    def get_currentPath(self):
        return self.line.text()

    def set_currentPath(self, path):
        self.line.setText(path)

    def set_showBrowseButton(self, visible):
        self.button.setVisible(visible)

    def do_addCurrentPathToHistory(self):
        """Nothing to see here."""
