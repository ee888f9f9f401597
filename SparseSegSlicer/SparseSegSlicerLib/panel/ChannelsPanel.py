"""The section "More channels": up to three more volumes; the Controller has them, and says why one cannot be."""

from ..session.Channels import PLACES
from .Section import Section


class ChannelsPanel(Section):
    def __init__(self, ui, controller) -> None:
        super().__init__()
        self._controller = controller
        self._selectors = {place: getattr(ui, f"channelSelector{place}") for place in PLACES}
        for place, selector in self._selectors.items():
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node, place=place: self._choose(place, node))

    def _show(self) -> None:
        for place, selector in self._selectors.items():
            node = self._controller.channels.node(place)
            if selector.currentNode() is not node:
                selector.setCurrentNode(node)
            selector.enabled = self._controller.volumeNode is not None and self._controller.segmentationNode is not None

    def _choose(self, place: int, node) -> None:
        if not self._isOurs:
            self._controller.setChannel(place, node)
            self.update()  # what was refused is not shown
