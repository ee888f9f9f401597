"""What is remembered with the scene, and the engine's Settings made from it. No qt.

What belongs to a segmentation is written on it, and other nodes are named by references: so it comes along when its scene is added to another, and
two segmentations do not share it. The rest is on a parameter node, the one that Slicer's ScriptedLoadableModuleLogic would make (singleton tag,
ModuleName), written directly so that hosts without Slicer's Python package can use it.
"""

from __future__ import annotations

import json
from typing import Any

from sparseseg.contract.channels import MOST_CHANNELS
from sparseseg.contract.settings import Settings

from ..scene.Nodes import newNode

MODULE_NAME = "SparseSegSlicer"
_SHARED: dict[str, Any] = {
    "device": "auto",
    "startFrom": "",
    "autoUpdate": True,
    "opacity": 0.5,
    "show3D": True,
    "target": "same",  # or "new"
    "settings": {},  # engine settings that differ from their defaults; a segmentation may have its own
}
_OF_SEGMENTATION: dict[str, Any] = {
    "complete": [],  # [axis, index] pairs, axis 0 = k
    "ignored": [],
    "kept": [],  # places where the strokes are right, whatever a check says: [axis, index, painted ID, believed ID, box]
    "locked": [],  # segment IDs: keep as is
    "unused": [],  # segment IDs that take no part
    "frame": -1,  # of a sequence, on which the result was made; -1: of none
    "frameIsLeft": False,  # whether the volume shows another one
    "hints": {},  # by segment ID: a number, which names its Markups' references, and what was ticked or typed
    "found": {},  # what the last result said: estimate by segment ID, next slices
}
_DEFAULTS = _SHARED | _OF_SEGMENTATION
_ROLES = {"volume": "InputVolume", "segmentation": "InputSegmentation", "applied": "AppliedResult"}
_ROLES_OF_SEGMENTATION = {
    "preview": "SparseSegSlicer.Preview",
    "model": "SparseSegSlicer.Model",
    **{f"channel{place}": f"SparseSegSlicer.Channel{place}" for place in range(1, MOST_CHANNELS)},
    "slicesOf": "SparseSegSlicer.Volume",  # the volume that these slices, places, preview and model belong to
}


class Parameters:
    """Typed access by name; every name is one of those above. Where no segmentation is chosen, what belongs to one is on the parameter node."""

    def __init__(self, scene) -> None:
        self._scene, self._node = scene, None
        self._remembered: tuple[dict[str, str], dict[str, Any]] | None = None

    @property
    def node(self):
        node = self._node
        if node is None or node.GetScene() is not self._scene:
            node = self._node = self._scene.GetSingletonNode(MODULE_NAME, "vtkMRMLScriptedModuleNode") or self._make()
        return node

    def get(self, name: str) -> Any:
        """The value, of the default's type; the default where nothing, or nothing readable, is stored."""
        default, text = _DEFAULTS[name], self._read(name)
        try:
            value = json.loads(text) if text else default
        except ValueError:
            return default
        return value if isinstance(value, type(default)) else default

    def set(self, name: str, value: Any) -> None:
        if name not in _DEFAULTS:
            raise KeyError(name)
        segmentation = self.getNode("segmentation")
        if name in _SHARED or segmentation is None:
            self.node.SetParameter(name, json.dumps(value))
        if segmentation is not None and (name in _OF_SEGMENTATION or name == "settings"):
            segmentation.SetAttribute(_attribute(name), json.dumps(value))

    def setMember(self, name: str, member: Any, wanted: bool) -> None:
        """Puts something into a list, or takes it out; the list stays sorted and without doubles."""
        others = [entry for entry in self.get(name) if entry != member]
        self.set(name, sorted([*others, member] if wanted else others))

    def pairs(self, name: str) -> tuple[tuple[int, int], ...]:
        return tuple((int(axis), int(index)) for axis, index in self.get(name))

    def getNode(self, name: str):
        owner, role = self._place(name)
        return owner.GetNodeReference(role)

    def setNode(self, name: str, node) -> None:
        owner, role = self._place(name)
        owner.SetNodeReferenceID(role, node.GetID() if node is not None else None)

    def getHintNode(self, number: int, kind: str):
        return self._ownerOfHints.GetNodeReference(_hintRole(number, kind))

    def setHintNode(self, number: int, kind: str, node) -> None:
        self._ownerOfHints.SetNodeReferenceID(_hintRole(number, kind), node.GetID() if node is not None else None)

    def settings(self) -> Settings:
        """Raises InputError where a stored value is out of range."""
        return Settings.from_json(self.get("settings"))

    def setSetting(self, name: str, value: Any) -> None:
        """Raises InputError for a value that the engine does not take; then the old one stays."""
        changed = Settings.from_json({**self.get("settings"), name: value}).to_json()
        defaults = Settings().to_json()
        self.set("settings", {key: v for key, v in changed.items() if v != defaults[key]})

    def removeOwn(self, segmentation) -> None:
        """What is of no use without a segmentation: its preview and its model; kept strokes stay."""
        for name in ("preview", "model"):
            node = segmentation.GetNodeReference(_ROLES_OF_SEGMENTATION[name])
            if node is not None and node.GetScene() is self._scene:
                self._scene.RemoveNode(node)

    # -- a scene that is added -------------------------------------------------------------------------------------------

    def remember(self) -> None:
        """Before a scene is added, whose parameter node takes the place of ours."""
        texts = {name: self.node.GetParameter(name) for name in _SHARED}
        nodes = {name: self.getNode(name) for name in _ROLES}
        self._remembered = (texts, nodes) if nodes["volume"] is not None and nodes["segmentation"] is not None else None

    def recall(self) -> None:
        """After it was added: a session that was under way goes on; otherwise that of the scene is taken up."""
        remembered, self._remembered = self._remembered, None
        if remembered is None:
            return
        for name, text in remembered[0].items():
            self.node.SetParameter(name, text)
        for name, node in remembered[1].items():
            self.setNode(name, node)

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _read(self, name: str) -> str:
        segmentation = self.getNode("segmentation")
        own = "" if segmentation is None else segmentation.GetAttribute(_attribute(name)) or ""
        if segmentation is not None and name in _OF_SEGMENTATION:
            return own
        return (own if name == "settings" else "") or self.node.GetParameter(name)

    def _place(self, name: str):
        if name in _ROLES:
            return self.node, _ROLES[name]
        return self.getNode("segmentation") or self.node, _ROLES_OF_SEGMENTATION[name]

    @property
    def _ownerOfHints(self):
        return self.getNode("segmentation") or self.node

    def _make(self):
        node = newNode(self._scene, "vtkMRMLScriptedModuleNode", MODULE_NAME, MODULE_NAME)
        node.SetModuleName(MODULE_NAME)
        return self._scene.AddNode(node)


def _hintRole(number: int, kind: str) -> str:
    return f"{MODULE_NAME}.Hint{number}.{kind}"


def _attribute(name: str) -> str:
    return f"{MODULE_NAME}.{name}"
