"""Python modules that Slicer has and the slicer-core wheel lacks: slicer.ScriptedLoadableModule, slicer.i18n, slicer.packaging."""

import importlib.metadata
import types
import unittest
from pathlib import Path

import slicer

from host import catalogue


class _Named:
    """`moduleName` is the class name without the ending."""

    def _name(self, ending):
        return type(self).__name__.removesuffix(ending)


class ScriptedLoadableModule:
    """Base of the class that introduces a module."""

    def __init__(self, parent):
        self.parent, self.moduleName = parent, type(self).__name__
        parent.title, parent.helpText, parent.acknowledgementText = "", "", ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []

    def resourcePath(self, filename):
        """Path below the module's Resources folder."""
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage=None):
        """A line of HTML for the help text."""
        return f'<p>For more information see the <a href="https://slicer.readthedocs.io/">{docPage or self.moduleName}</a>.</p>'

    def runTest(self, msec=100, **kwargs):
        """Nothing: pytest runs the tests."""


class ScriptedLoadableModuleWidget(_Named):
    """Base of the module's panel; `parent` is a qSlicerScriptedLoadableModuleWidget with a vertical layout."""

    def __init__(self, parent=None):
        if parent is None:
            raise ValueError("the test host gives every module widget a parent")
        self.parent, self.layout = parent, parent.layout()
        self.moduleName = self._name("Widget")
        self.developerMode = False

    def resourcePath(self, filename):
        """Path below the module's Resources folder."""
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self):
        """Slicer adds the developer's reload buttons here."""

    def cleanup(self):
        """Called before the panel goes."""

    def onReload(self):
        """The developer's button Reload."""
        slicer.util.reloadScriptedModule(self.moduleName)

    def enter(self):
        """Called when the user comes to the module."""

    def exit(self):
        """Called when the user leaves the module."""


class ScriptedLoadableModuleLogic(_Named):
    """Base of the module's logic, with its parameter node."""

    def __init__(self, parent=None):
        self.parent, self.moduleName = parent, self._name("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        """The module's parameter node, made if there is none."""
        return self.getAllParameterNodes()[0] if self.getAllParameterNodes() else self.createParameterNode()

    def getAllParameterNodes(self):
        """All vtkMRMLScriptedModuleNode of this module."""
        scene = slicer.mrmlScene
        nodes = [scene.GetNthNodeByClass(i, "vtkMRMLScriptedModuleNode") for i in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode"))]
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self):
        """A new parameter node, one for all scenes' time if it is a singleton."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of the self test."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.messageDelay, self.enableScreenshots = 0, False

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        """Slicer shows the message for a while."""

    def runTest(self):
        """Overridden by the module's test."""


def _module(name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    return module


def _packaging(calls):
    """slicer.packaging that installs nothing; `calls` gets (function, requirements)."""

    def satisfied(requirement):
        try:
            return bool(importlib.metadata.version(requirement.split(">")[0].split("=")[0].split("<")[0].strip()))
        except importlib.metadata.PackageNotFoundError:
            return False

    def pip_check(req):
        calls.append(("pip_check", req))
        return all(satisfied(r) for r in ([req] if isinstance(req, str) else req))

    def recorder(function):
        def record(requirements, *args, **kwargs):
            calls.append((function, requirements))

        return record

    return _module("slicer.packaging", pip_check=pip_check, pip_install=recorder("pip_install"), pip_ensure=recorder("pip_ensure"), calls=calls)


def _recent():
    """Slicer 5.12 brought slicer.packaging, and functions to slicer.util that the wheel has too."""
    return tuple(int(part) for part in catalogue.version().split(".")[:2]) >= (5, 12)


def util_changes(pip_calls):
    """Name -> function that slicer.util of the emulated version has in place of the wheel's; None where it has none."""
    if _recent():
        return {}
    return {
        "LazyImport": None,
        "executePythonModule": None,
        "pip_install": lambda requirements: pip_calls.append(("pip_install", requirements)),
        "pip_uninstall": lambda requirements: pip_calls.append(("pip_uninstall", requirements)),
    }


def modules(pip_calls):
    """Full name -> module; None makes an import fail as in a Slicer that has no such module."""
    classes = (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest)
    public = {cls.__name__: cls for cls in classes}
    identity = {"tr": lambda text: text, "translate": lambda context, text: text, "getContext": lambda path: Path(path).stem}
    return {
        "slicer.ScriptedLoadableModule": _module("slicer.ScriptedLoadableModule", __all__=[*public], **public),
        "slicer.i18n": _module("slicer.i18n", **identity),
        "slicer.packaging": _packaging(pip_calls) if _recent() else None,
    }
