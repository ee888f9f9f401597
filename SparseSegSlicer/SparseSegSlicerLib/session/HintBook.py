"""What the user says of segments without painting them, remembered with the segmentation: its Markups by references, the rest as text. No qt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import slicer
import vtk

from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.hints import SegmentHints

from ..scene.Hinting import Given
from ..scene.HintNodes import pointsOf, roiOf
from .Observers import Observers
from .Parameters import Parameters

NODES = ("roi", "inside", "outside")  # the fields of Entry that are nodes


@dataclass(frozen=True)
class Entry:
    """Of one segment, or of BACKGROUND, which has points alone. roi, inside, outside: Markups nodes, or None; leastMl, mostMl: 0 where they are
    open."""

    roi: Any = None
    inside: Any = None
    outside: Any = None
    onePiece: bool = False
    noHoles: bool = False
    leastMl: float = 0.0
    mostMl: float = 0.0


_VALUES = {field.name: field.default for field in fields(Entry) if field.name not in NODES}


class HintBook:
    """changed() is called when something in the scene makes the hints others."""

    def __init__(self, parameters: Parameters, changed: Callable[[], None]) -> None:
        self._parameters, self._changed, self._observers = parameters, changed, Observers()

    def entry(self, segmentID: str) -> Entry:
        values = self._parameters.get("hints").get(segmentID, {})
        kept = {name: type(default)(values.get(name, default)) for name, default in _VALUES.items()}
        return Entry(*(self._parameters.getHintNode(values.get("number", 0), kind) for kind in NODES), **kept)

    def write(self, segmentID: str, **changes: Any) -> None:
        """changes: fields of Entry."""
        if all(getattr(self.entry(segmentID), name) == value for name, value in changes.items()):
            return
        hints = dict(self._parameters.get("hints"))
        number = 1 + max((values["number"] for values in hints.values()), default=0)
        values = hints[segmentID] = dict(hints.get(segmentID, {"number": number}))
        for name, value in changes.items():
            if name in NODES:
                self._parameters.setHintNode(values["number"], name, value)
            else:
                values[name] = value
        self._parameters.set("hints", hints)
        self.observe()

    def clear(self) -> None:
        for values in self._parameters.get("hints").values():
            for kind in NODES:
                self._parameters.setHintNode(values["number"], kind, None)
        self._parameters.set("hints", {})
        self.observe()

    def forgetNode(self, node) -> bool:
        """It is deleted; whether it was a hint."""
        found = [(values["number"], kind) for values in self._parameters.get("hints").values() for kind in NODES]
        found = [place for place in found if self._parameters.getHintNode(*place) is node]
        for place in found:
            self._parameters.setHintNode(*place, None)
        if found:
            self.observe()
        return bool(found)

    def read(self, volumeNode) -> Given:
        """All of them, as the engine takes them; a refusal where nodes cannot be used."""
        given = []
        for segmentID in self._parameters.get("hints"):
            try:
                given.append((segmentID, _hintsOf(self.entry(segmentID), volumeNode)))
            except SparseSegError as error:
                return Given(refusal=error)
        return Given(tuple((segmentID, hints) for segmentID, hints in sorted(given) if hints != SegmentHints()))

    def observe(self) -> None:
        """Hears of the nodes that are hints now."""
        self._observers.clear()
        entries = [self.entry(segmentID) for segmentID in self._parameters.get("hints")]
        for node in {node for entry in entries for node in (entry.roi, entry.inside, entry.outside) if node is not None}:
            moved = (vtk.vtkCommand.ModifiedEvent, node.PointModifiedEvent, node.PointRemovedEvent)
            self._observers.add(node, (*moved, slicer.vtkMRMLTransformableNode.TransformModifiedEvent), lambda *_: self._changed())

    def close(self) -> None:
        self._observers.clear()


def _hintsOf(entry: Entry, volumeNode) -> SegmentHints:
    return SegmentHints(
        None if entry.roi is None else roiOf(entry.roi, volumeNode),
        () if entry.inside is None else pointsOf(entry.inside, volumeNode),
        () if entry.outside is None else pointsOf(entry.outside, volumeNode),
        entry.onePiece,
        entry.noHoles,
        (entry.leastMl or None, entry.mostMl or None),
    )
