"""The section "More channels": up to three more volumes; the Controller has them, and says why one cannot be."""

from ..session.Channels import PLACES


class ChannelsPanel:
    def __init__(self, ui, controller) -> None:
        self._controller, self._updating = controller, False
        self._selectors = {place: getattr(ui, f"channelSelector{place}") for place in PLACES}
        for place, selector in self._selectors.items():
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node, place=place: self._choose(place, node))

    def close(self) -> None:
        """What the selectors signal from now on, losing their scene, is not the user's choice."""
        self._updating = True

    def update(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for place, selector in self._selectors.items():
                node = self._controller.channels.node(place)
                if selector.currentNode() is not node:
                    selector.setCurrentNode(node)
                selector.enabled = self._controller.volumeNode is not None and self._controller.segmentationNode is not None
        finally:
            self._updating = False

    def _choose(self, place: int, node) -> None:
        if not self._updating:
            self._controller.setChannel(place, node)
            self.update()  # what was refused is not shown
