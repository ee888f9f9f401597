"""Stand-ins for Segment Editor effects: those without function, those that are written in Python, and the factory that knows the latter."""

import importlib.util
import sys
import types
from pathlib import Path

import slicer
from PySide6 import QtWidgets

from host import errors
from host.standin import StandIn, behaviour, standin
from host.wrapping import unwrap, wrap

registered = []  # the prototypes, which each editor clones


@behaviour
class qSlicerSegmentEditorAbstractEffect(StandIn):
    """An effect without function, but with its parameters in the segment editor node."""

    editor = None

    def do_parameterSetNode(self):
        return self.editor.editor_node

    def do_setParameter(self, name, value):
        self.editor.editor_node.SetAttribute(f"{self.values['name']}.{name}", str(value))

    def do_parameter(self, name):
        return self.editor.editor_node.GetAttribute(f"{self.values['name']}.{name}") or ""

    def do_setCommonParameter(self, name, value):
        self.editor.editor_node.SetAttribute(name, str(value))

    def do_scene(self):
        return self.editor.editor_node.GetScene()

    def do_saveStateForUndo(self):
        self.editor.do_saveStateForUndo()

    def do_selectEffect(self, name):
        self.editor.do_setActiveEffectByName(name)


@behaviour
class qSlicerSegmentEditorScriptedEffect(qSlicerSegmentEditorAbstractEffect):
    """Calls the Python object as qSlicerSegmentEditorScriptedEffect.cxx does: the base's part first, and an exception goes to the log."""

    def prepare(self):
        self.values.update(name="UnnamedScriptedEffect", perSegment=True, requireSegments=True)
        self.values.update(showEffectCursorInSliceView=True, showEffectCursorInThreeDView=True)
        self.python, self.is_active = None, False
        self.frame = QtWidgets.QFrame()
        QtWidgets.QFormLayout(self.frame)
        self.frame.setVisible(False)

    def in_python(self, name, *arguments):
        """None where the effect has no such method, or it raises."""
        method = getattr(self.python, name, None)
        if method is None:
            return None
        try:
            return method(*arguments)
        except Exception:
            errors.record()
            return None

    def do_setPythonSource(self, path):
        """The class is named as the file, and found in a module that is named as its folder."""
        module_name, class_name = Path(path).parent.name, Path(path).stem
        if not hasattr(sys.modules.get(module_name), class_name):
            spec = importlib.util.spec_from_file_location(module_name, path)
            sys.modules[module_name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[module_name])
        self.python = getattr(sys.modules[module_name], class_name)(wrap(self))
        self.values["pythonSource"] = path
        setattr(slicer, module_name, self.python)
        return True

    def do_pythonSource(self):
        return self.values.get("pythonSource", "")

    def do_self(self):
        return self.python

    def do_helpText(self):
        return self.in_python("helpText") or ""

    def do_active(self):
        return self.is_active

    def do_activate(self):
        self.frame.setVisible(True)
        self.is_active = True
        self.do_updateGUIFromMRML()
        self.in_python("activate")

    def do_deactivate(self):
        self.frame.setVisible(False)
        self.is_active = False
        self.in_python("deactivate")

    def do_updateGUIFromMRML(self):
        if self.is_active:
            self.in_python("updateGUIFromMRML")

    def do_cleanup(self):
        self.in_python("cleanup")

    def do_optionsFrame(self):
        return self.frame

    def do_optionsLayout(self):
        return self.frame.layout()

    def do_addOptionsWidget(self, added):
        self.frame.layout().addRow(unwrap(added))

    def clone(self, editor):
        """The effect of one editor, set up."""
        cloned = unwrap(self.in_python("clone"))
        if not isinstance(cloned, qSlicerSegmentEditorScriptedEffect):
            raise TypeError(f"clone of {self.values['name']} gives {cloned!r}, which is no effect")
        cloned.editor = editor
        if editor.editor_node is not None:
            cloned.in_python("setMRMLDefaults")
        if cloned.in_python("icon") is None:
            raise ValueError(f"{self.values['name']} has no icon")
        cloned.in_python("setupOptionsFrame")
        return cloned


@behaviour
class qSlicerSegmentEditorEffectFactory(StandIn):
    """One for all editors."""

    _instance = None

    @staticmethod
    def static_instance():
        cls = qSlicerSegmentEditorEffectFactory
        if cls._instance is None:
            cls._instance = standin("qSlicerSegmentEditorEffectFactory")()
        return cls._instance

    def do_registerEffect(self, effect):
        effect, name = unwrap(effect), effect.name
        if any(known.values["name"] == name for known in registered):
            return False
        registered.append(effect)
        self.emit_("effectRegistered(QString)", name)
        return True

    def do_registeredEffects(self):
        return tuple(registered)


class AbstractScriptedSegmentEditorEffect:
    """What `SegmentEditorEffects` gives as base: the C++ side is `scriptedEffect`."""

    def __init__(self, scriptedEffect):
        self.scriptedEffect = scriptedEffect

    def register(self):
        slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

    def cleanup(self):
        """Called before the editor goes."""


def modules(namespace):
    """Full name -> module. namespace(name, prefixes): a module of proxy classes."""
    package = types.ModuleType("SegmentEditorEffects")
    package.AbstractScriptedSegmentEditorEffect = AbstractScriptedSegmentEditorEffect
    name = "qSlicerSegmentationsEditorEffectsPythonQt"
    return {"SegmentEditorEffects": package, name: namespace(name, ("qSlicerSegmentEditor",))}
