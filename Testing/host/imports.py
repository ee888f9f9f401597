"""Puts the host's `qt`, `ctk` and parts of `slicer` where `import` finds them, and takes them away again."""

import sys
import types

import slicer

from host import effects, scripted
from host.pythonqt import proxy_class

REPLACED = ("app", "modules", "__getattr__", "i18n", "packaging", "ScriptedLoadableModule")  # attributes of the package `slicer`


def namespace(name, prefixes):
    """A module whose attributes are the proxy classes of these prefixes: qt has no ctk class."""
    module = types.ModuleType(name)

    def lookup(attribute):
        if attribute.startswith("__") or not attribute.startswith(prefixes):
            raise AttributeError(f"module '{name}' has no attribute '{attribute}'")
        return proxy_class(attribute)

    module.__getattr__ = lookup
    return module


class Imports:
    """One installation at a time; `uninstall` restores what `install` found."""

    def __init__(self):
        self._before = None

    def install(self, app, modules, pip_calls):
        """`app` and `modules` become slicer.app and slicer.modules."""
        if self._before is not None:
            return
        fakes = {
            "qt": namespace("qt", ("Q",)),
            "ctk": namespace("ctk", ("ctk",)),
            "slicer.modules": modules,
            **scripted.modules(pip_calls),
            **effects.modules(namespace),
        }
        self._before = {
            "modules": {name: sys.modules.get(name) for name in fakes},
            "path": list(sys.path),
            "slicer": {name: vars(slicer)[name] for name in REPLACED if name in vars(slicer)},
            "util": dict(vars(slicer.util)),
        }
        sys.modules.update(fakes)
        for name, module in fakes.items():
            if name.startswith("slicer.") and module is not None:
                setattr(slicer, name.removeprefix("slicer."), module)
        slicer.app, slicer.__getattr__ = app, namespace("slicer", ("qMRML", "qSlicer")).__getattr__
        for name, function in scripted.util_changes(pip_calls).items():
            vars(slicer.util).update({name: function}) if function else vars(slicer.util).pop(name, None)

    def uninstall(self):
        """Leave no trace in sys.modules, sys.path, `slicer` and slicer.util."""
        if self._before is None:
            return
        before, self._before = self._before, None
        for name, module in before["modules"].items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        for name in REPLACED:
            vars(slicer).pop(name, None)
        vars(slicer).update(before["slicer"])
        vars(slicer.util).update(before["util"])
        sys.path[:] = before["path"]
