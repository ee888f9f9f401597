"""The application for panel tests: `qt`, `ctk` and `slicer` with PythonQt's rules around the scene of SceneHost.

There is one Host in a process, because Qt allows one application; `activate` and `deactivate` put its modules into sys.modules and out.
"""

import ctypes
import gc
import importlib.util
import os
import sys
import tempfile
import time
import types
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from host import application, dialogs, editor, effects, errors, nodecombobox, shortcuts, standin, standins, uiloader
from host.imports import Imports
from host.wrapping import proxies, wrap

LOADABLE = ("Volumes", "Terminologies", "SubjectHierarchy", "Segmentations", "Transforms")
BEHAVIOURS = (editor, effects, nodecombobox, shortcuts, standins, uiloader)  # imported for what they register


def _keep_none_alive():
    """PySide6 6.12 returns None from every void function without counting the reference, as if it were immortal; before Python 3.12 it is not.

    After some 10 000 calls the interpreter would abort with "deallocating None", mostly at its end. A far higher count costs nothing.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40  # a PyObject begins with its reference count


class Host:
    """See README.md for use. `errors`, `dialogs`, `answers`, `calls` and `pip_calls` are emptied by `reset`."""

    def __init__(self, scene_host):
        _keep_none_alive()
        self.scene_host, self.scene, self.slicer = scene_host, scene_host.scene, slicer
        self.application_logic = scene_host.applicationLogic
        self.errors, self.dialogs, self.answers, self.calls, self.pip_calls = errors.errors, dialogs.shown, dialogs.answers, standin.calls, []
        self.testing_enabled = False
        self._loaded, self._imports, self._closed = [], Imports(), False
        self.folder = tempfile.TemporaryDirectory(prefix="panel-host-")
        self.settings_path, self.temporary_path = str(Path(self.folder.name) / "Slicer.ini"), str(Path(self.folder.name) / "temporary")
        Path(self.temporary_path).mkdir()
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, self.folder.name)
        self.qt_application = standin.standin("qSlicerApplication")(["Slicer"])
        self.qt_application.host = self
        self.app = wrap(self.qt_application)
        self._make_parts()
        self._lasting = {self.scene.GetNthNode(i).GetID() for i in range(self.scene.GetNumberOfNodes())}

    def _make_parts(self):
        self.layout_manager, self.module_manager = standin.standin("qSlicerLayoutManager")(), standin.standin("qSlicerModuleManager")()
        self.layout_manager.host = self.module_manager.host = self
        self.extensions = standin.standin("qSlicerExtensionsManagerModel")()
        self.main_window = standin.standin("qSlicerMainWindow")()
        self.main_window.setObjectName("qSlicerMainWindow")
        self.slice_logics, self.slice_logic_collection = {}, vtk.vtkCollection()
        for name in application.SLICE_VIEWS:
            logic = self.slice_logics[name] = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(self.scene)
            self.slice_logic_collection.AddItem(logic)
        self.application_logic.SetSliceLogics(self.slice_logic_collection)
        self.modules, self.module_namespace = {}, types.ModuleType("slicer.modules")
        for name in LOADABLE:
            self._add_module(name, getattr(slicer.modules, name.lower()).logic())
        self._add_module("Colors", self.application_logic.GetColorLogic())

    def _add_module(self, name, logic=None, **properties):
        module, proxy = application.module_object(name, logic, **properties)
        self.modules[name.lower()] = module
        setattr(self.module_namespace, name.lower(), proxy)
        return module, proxy

    # -- life of a test

    def activate(self):
        """`import qt, ctk, slicer` give the host's from now on."""
        self._imports.install(self.app, self.module_namespace, self.pip_calls)
        errors.install()

    def deactivate(self):
        """Leave sys.modules, sys.path and `slicer` as they were before."""
        errors.uninstall()
        self._imports.uninstall()

    def reset(self):
        """Unload modules, end timers and windows, empty scene, settings and records."""
        for module in list(self._loaded):
            try:
                self.unload(module)
            except Exception:
                errors.record()
        self._sweep()
        effects.registered.clear()
        self.clear_scene()
        self.app.settings().clear()
        self.app.temporaryPath = self.temporary_path
        self.extensions.installed.clear()
        self.testing_enabled = False
        while QtWidgets.QApplication.overrideCursor() is not None:
            QtWidgets.QApplication.restoreOverrideCursor()
        for record in (self.errors, self.dialogs, self.answers, self.calls, self.pip_calls):
            record.clear()

    def _sweep(self):
        """Timers without a parent would fire in the next test; windows that a test left open would be found by it."""
        for proxy in list(proxies.values()):
            if shiboken6.isValid(proxy._q) and isinstance(proxy._q, QtCore.QTimer):
                proxy._q.stop()
        ours = [self.main_window, *self.layout_manager.parts.values()]
        for window in QtWidgets.QApplication.topLevelWidgets():
            if not any(window is w for w in ours):
                window.hide()
                window.deleteLater()
        QtWidgets.QApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)
        for address in [a for a, proxy in proxies.items() if not shiboken6.isValid(proxy._q)]:
            del proxies[address]
        gc.collect()

    def clear_scene(self):
        """An empty scene with slice views, without singletons that a test made."""
        self.scene_host.clear()
        nodes = [self.scene.GetNthNode(i) for i in range(self.scene.GetNumberOfNodes())]
        for node in [n for n in nodes if n.GetID() not in self._lasting]:
            self.scene.RemoveNode(node)
        self.restore_views()

    def close_scene(self):
        """What File / Close Scene does: singletons such as slice views stay."""
        self.scene.Clear(False)
        self.restore_views()
        self.spin()

    def restore_views(self):
        """Slice nodes for the three views, also after a scene.Clear(True) that removed them."""
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self.scene_host.addViews()
        for name, logic in self.slice_logics.items():
            logic.SetSliceNode(self.scene.GetSingletonNode(name, "vtkMRMLSliceNode"))
            logic.SetSliceCompositeNode(self.scene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode"))

    def close(self):
        """Before the interpreter ends: Qt objects first, then what they hold of VTK."""
        if self._closed:
            return
        self._closed = True
        self.reset()
        self.deactivate()
        self.application_logic.SetSliceLogics(None)
        for widget in [w for w in QtWidgets.QApplication.topLevelWidgets() if shiboken6.isValid(w)]:
            shiboken6.delete(widget)
        for logic in self.slice_logics.values():
            logic.SetMRMLScene(None)
        self.slice_logic_collection.RemoveAllItems()
        for holder in (self.slice_logics, self.modules, vars(self.module_namespace), self.layout_manager.parts):
            holder.clear()
        proxies.clear()
        gc.collect()
        self.folder.cleanup()

    # -- modules

    def introduce(self, path):
        """Slicer knows a scripted module's file, as after its start; returns the Python module. The panel is made at the first visit."""
        path = Path(path)
        name = path.stem
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        code = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        module, proxy = self._add_module(name, path=str(path))
        setattr(self.module_namespace, name + "Instance", getattr(code, name)(proxy))
        self._loaded.append(module)
        return code

    def load_module(self, path):
        """(Python module, its widget, top level QWidget as proxy) of a scripted module's file; runs setup, not enter."""
        name = Path(path).stem
        known = self.modules.get(name.lower()) in self._loaded
        code = sys.modules[name] if known else self.introduce(path)
        module = self.modules[name.lower()]
        top = module.panel = standin.standin("qSlicerScriptedLoadableModuleWidget")()
        top.module, top.scene = module, self.scene
        top.values["moduleName"] = name
        QtWidgets.QVBoxLayout(top)
        top.remake = lambda: self._set_up(top, name)
        self._set_up(top, name)
        return code, top.python_widget, wrap(top)

    def _set_up(self, top, name):
        top.ready = False
        widget = top.python_widget = getattr(sys.modules[name], name + "Widget")(wrap(top))
        setattr(self.module_namespace, name + "Widget", widget)
        widget.setup()
        top.ready = True

    def _module(self, name):
        return self._loaded[-1] if name is None else self.modules[name.lower()]

    def enter(self, name=None):
        """The user comes to the module (the last loaded one without a name)."""
        self._module(name).panel.do_enter()
        self.spin()

    def exit(self, name=None):
        """The user leaves the module."""
        self._module(name).panel.do_exit()
        self.spin()

    def unload(self, module=None):
        """exit if entered, cleanup, delete the panel."""
        module = module or self._loaded[-1]
        self._loaded.remove(module)
        panel, name = module.panel, module.objectName()
        try:
            if panel is not None and panel.values.get("isEntered"):
                panel.do_exit()
            if panel is not None and panel.ready:
                panel.python_widget.cleanup()
        finally:
            if panel is not None:
                shiboken6.delete(panel)
            module.panel = None
            self.modules.pop(name.lower())
            for attribute in (name.lower(), name + "Instance", name + "Widget"):
                vars(self.module_namespace).pop(attribute, None)
            sys.modules.pop(name, None)

    # -- what a user does

    def spin(self, seconds=0.0, until=None, timeout_s=10.0):
        """Process events for some time, or until a condition holds; TimeoutError if it does not within timeout_s."""
        start = time.monotonic()
        while True:
            QtWidgets.QApplication.processEvents()
            QtWidgets.QApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)
            passed = time.monotonic() - start
            if until() if until else passed >= seconds:
                return
            if until and passed > timeout_s:
                raise TimeoutError(f"spin: the condition did not hold within {timeout_s} s")
            time.sleep(0.002)

    def click(self, button):
        """Click as a user can: AssertionError for a disabled or hidden button."""
        q = standin.behind(button)
        visible = q.isWindow() or q.isVisibleTo(q.window())
        if not q.isEnabled() or not visible:
            raise AssertionError(f"{q.objectName() or button!r} cannot be clicked: enabled {q.isEnabled()}, visible {visible}")
        q.click()
        self.spin()

    def paint(self, editor_widget, segment_id, region, erase=False):
        """A brush stroke with undo in the segment editor; `region`: three (start, stop) for k, j, i, or indices kji of shape (N, 3)."""
        standin.behind(editor_widget).stroke(segment_id, region, erase)
        self.spin()

    def screenshot(self, widget, path, width=420):
        """Write the widget as PNG, as high as it wants to be at this width; returns the path."""
        q = standin.behind(widget)
        q.resize(width, max(1, q.sizeHint().height()))
        if q.isWindow():
            q.show()
        self.spin()
        q.resize(width, max(1, q.heightForWidth(width), q.sizeHint().height()))
        self.spin()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not q.grab().save(str(path), "PNG"):
            raise OSError(f"cannot write {path}")
        return Path(path)
