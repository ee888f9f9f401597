"""What a saved scene keeps of a session beside strokes and preview, so that it goes on another day: the model, and what the last result said. No qt.

The model is text in a node of the scene, since that is what every way of saving a scene takes along.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from ..scene.Nodes import newNode
from .Background import Background
from .Parameters import Parameters
from .States import Report


class SavedSession:
    def __init__(self, scene, parameters: Parameters, background: Background) -> None:
        self._scene, self._parameters, self._background = scene, parameters, background

    def keep(self, report: Report, model: str, isCurrent: Callable[[], bool]) -> None:
        """After a result. model: the file; isCurrent() tells, when it was read, whether it is still wanted."""
        self._parameters.set("found", {"estimate": report.estimate, "nextSlices": report.nextSlices})
        if model:
            read = lambda: base64.b64encode(Path(model).read_bytes()).decode("ascii")  # noqa: E731
            self._background.submit(read, lambda text: self._setModel(text) if isCurrent() else None, lambda error: None)

    def restore(self, report: Report) -> None:
        found = self._parameters.get("found")
        report.estimate = {str(sid): float(dice) for sid, dice in found.get("estimate", {}).items()}
        report.nextSlices = [[int(axis), int(index)] for axis, index in found.get("nextSlices", [])]

    def model(self) -> Callable[[], bytes] | None:
        """What reads the model, in any thread; None where there is none."""
        node = self._parameters.getNode("model")
        text = "" if node is None else node.GetText()
        return (lambda: base64.b64decode(text)) if text else None

    def drop(self) -> None:
        """The model is of no use any more, nor is what was found with it."""
        node = self._parameters.getNode("model")
        if node is not None:
            self._scene.RemoveNode(node)
        if self._parameters.get("found"):
            self._parameters.set("found", {})

    def _setModel(self, text: str) -> None:
        node = self._parameters.getNode("model")
        if node is None:
            node = newNode(self._scene, "vtkMRMLTextNode", f"{self._parameters.getNode('segmentation').GetName()} model")
            node.SetHideFromEditors(True)
            node = self._scene.AddNode(node)
            self._parameters.setNode("model", node)
        node.SetText(text)
