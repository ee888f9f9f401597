"""The further volumes that are seen together with the first, remembered with the segmentation. No qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from sparseseg.contract.channels import MOST_CHANNELS
from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.geometry import Geometry

from ..i18n import tr as _
from ..scene.ChannelVolumes import channelGrid
from ..scene.Grids import volumeArray, volumeGeometry
from .Inputs import whenVoxelsChange
from .Observers import Observers
from .Parameters import Parameters
from .States import Message

PLACES = range(1, MOST_CHANNELS)  # beside the volume itself


class Channels:
    """changed(reason) is called when a channel shows something else, or lies elsewhere."""

    def __init__(self, parameters: Parameters, changed: Callable[[str], None]) -> None:
        self._parameters, self._changed, self._observers = parameters, changed, Observers()
        self._grids: list[Geometry | None] = []  # where the channels lie, in the volume's frame

    def node(self, place: int):
        return self._parameters.getNode(f"channel{place}")

    @property
    def nodes(self) -> list:
        """Those that are chosen."""
        return [node for node in map(self.node, PLACES) if node is not None]

    def whyNot(self, node, volumeNode) -> Message | None:
        """Why a volume cannot be one more channel; None where it can."""
        if node is volumeNode or node in self.nodes:
            return Message("warning", _("{name} is among the volumes already.").format(name=node.GetName()), _("Choose another one, or none."))
        try:
            volumeArray(node)
            channelGrid(node, volumeNode)
        except SparseSegError as error:
            return Message("warning", error.sentence, error.advice)
        return None

    def isElsewhere(self, node, volumeNode) -> bool:
        """Whether it lies on another grid than the volume."""
        return bool(channelGrid(node, volumeNode).difference_from(volumeGeometry(volumeNode)))

    def set(self, place: int, node) -> None:
        self._parameters.setNode(f"channel{place}", node)
        self.observe()

    def clear(self) -> None:
        for place in PLACES:
            self.set(place, None)

    def forgetNode(self, node) -> bool:
        """It is deleted; whether it was a channel."""
        found = [place for place in PLACES if self.node(place) is node]
        for place in found:
            self.set(place, None)
        return bool(found)

    def follow(self) -> None:
        """The volume, or a channel, may have been moved; together they may be."""
        before, self._grids = self._grids, self._where()
        pairs = zip(before, self._grids, strict=True)
        if any(now is not old and (now is None or old is None or now.difference_from(old)) for old, now in pairs):
            self._changed(_("a channel was moved"))

    def observe(self) -> None:
        self._observers.clear()
        self._grids = self._where()
        turned = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        for node in self.nodes:
            whenVoxelsChange(self._observers, node, lambda: self._changed(_("the voxels of a channel have changed")))
            self._observers.add(node, turned, lambda *_: self.follow())

    def close(self) -> None:
        self._observers.clear()
        self._grids = []

    def _where(self) -> list[Geometry | None]:
        volume = self._parameters.getNode("volume")
        return [] if volume is None else [_gridOrNone(node, volume) for node in self.nodes]


def _gridOrNone(node, volumeNode) -> Geometry | None:
    try:
        return channelGrid(node, volumeNode)
    except SparseSegError:  # which is said when a run is to begin
        return None
