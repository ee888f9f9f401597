"""What the panel remembers with the scene: a parameter node, and the engine's Settings made from it. No qt.

The node is the one that Slicer's ScriptedLoadableModuleLogic would make (singleton tag, ModuleName), written directly so that hosts
without Slicer's Python package can use it.
"""

from __future__ import annotations

import json
from typing import Any

from sparseseg.contract.settings import Settings

MODULE_NAME = "SparseSegSlicer"
_DEFAULTS: dict[str, Any] = {
    "complete": [],  # [axis, index] pairs, axis 0 = k
    "ignored": [],
    "kept": [],  # places where the strokes are right, whatever a check says: [axis, index, painted ID, believed ID, box]
    "slicesOf": "",  # the ID of the volume that these slices and places belong to
    "locked": [],  # segment IDs: keep as is
    "unused": [],  # segment IDs that take no part
    "device": "auto",
    "startFrom": "",
    "autoUpdate": True,
    "opacity": 0.5,
    "show3D": True,
    "target": "same",  # or "new"
    "settings": {},  # engine settings that differ from their defaults
}
_ROLES = {"volume": "InputVolume", "segmentation": "InputSegmentation", "preview": "Preview", "weights": "WeightMap", "applied": "AppliedResult"}


class Parameters:
    """Typed access to the parameter node; every name is one of `_DEFAULTS` or `_ROLES`."""

    def __init__(self, scene) -> None:
        node = scene.GetSingletonNode(MODULE_NAME, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetModuleName(MODULE_NAME)
            node.SetSingletonTag(MODULE_NAME)
            node.SetName(MODULE_NAME)
            node = scene.AddNode(node)
        self.node = node

    def get(self, name: str) -> Any:
        """The value, of the default's type; the default where nothing, or nothing readable, is stored."""
        default = _DEFAULTS[name]
        text = self.node.GetParameter(name)
        try:
            value = json.loads(text) if text else default
        except ValueError:
            return default
        return value if isinstance(value, type(default)) else default

    def set(self, name: str, value: Any) -> None:
        if name not in _DEFAULTS:
            raise KeyError(name)
        self.node.SetParameter(name, json.dumps(value))

    def setMember(self, name: str, member: Any, wanted: bool) -> None:
        """Puts something into a list, or takes it out; the list stays sorted and without doubles."""
        others = [entry for entry in self.get(name) if entry != member]
        self.set(name, sorted([*others, member] if wanted else others))

    def pairs(self, name: str) -> tuple[tuple[int, int], ...]:
        return tuple((int(axis), int(index)) for axis, index in self.get(name))

    def getNode(self, name: str):
        return self.node.GetNodeReference(_ROLES[name])

    def setNode(self, name: str, node) -> None:
        self.node.SetNodeReferenceID(_ROLES[name], node.GetID() if node is not None else None)

    def settings(self) -> Settings:
        """Raises InputError where a stored value is out of range."""
        return Settings.from_json(self.get("settings"))

    def setSetting(self, name: str, value: Any) -> None:
        """Raises InputError for a value that the engine does not take; then the old one stays."""
        changed = Settings.from_json({**self.get("settings"), name: value}).to_json()
        defaults = Settings().to_json()
        self.set("settings", {key: v for key, v in changed.items() if v != defaults[key]})
