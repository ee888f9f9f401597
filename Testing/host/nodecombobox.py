"""Stand-in for the node combo box: it follows the scene as Slicer's does."""

import shiboken6
from PySide6 import QtWidgets

from host.standin import StandIn, behaviour


@behaviour
class qMRMLNodeComboBox(StandIn):
    """Follows the scene: nodes of the wanted types, a current one, "None" and "Create new"."""

    CREATE = "+"

    def prepare(self):
        self.scene, self.tags, self.nodes, self.current, self.attributes = None, [], [], "", {}
        self.values.update(
            addEnabled=True, removeEnabled=True, showChildNodeTypes=True, selectNodeUponCreation=True, noneDisplay="None", nodeTypes=()
        )
        self.box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.box)
        self.box.activated.connect(self._picked)
        self.destroyed.connect(lambda *_: self._forget())  # a bound method would be disconnected before

    def _forget(self, *_):
        for tag in self.tags:
            self.scene.RemoveObserver(tag)
        self.tags = []

    def _picked(self, index):
        data = self.box.itemData(index)
        self.do_addNode() if data == self.CREATE else self._select(data)

    def _wanted(self, node):
        named = all(node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name)) for name, value in self.attributes.items())
        exact = self.values["showChildNodeTypes"] or node.GetClassName() in self.values["nodeTypes"]
        return named and exact and (not node.GetHideFromEditors() or self.values.get("showHidden"))

    def _fill(self, *_):
        """List the scene's nodes anew, and choose another one where the current one is gone."""
        if not shiboken6.isValid(self):
            return
        types = self.values["nodeTypes"] if self.scene else ()
        found = [self.scene.GetNthNodeByClass(i, t) for t in types for i in range(self.scene.GetNumberOfNodesByClass(t))]
        self.nodes = [node for node in found if self._wanted(node)]
        ids = [node.GetID() for node in self.nodes]
        if self.current not in ids:
            self._select(ids[0] if ids and not self.values.get("noneEnabled") else "")
        else:
            self._show()

    def _show(self):
        entries = [(self.values["noneDisplay"], "")] if self.values.get("noneEnabled") or not self.nodes else []
        entries += [(node.GetName(), node.GetID()) for node in self.nodes]
        entries += [("Create new ...", self.CREATE)] if self.scene and self.values["addEnabled"] else []
        self.box.blockSignals(True)
        self.box.clear()
        for text, data in entries:
            self.box.addItem(text, data)
        self.box.setCurrentIndex(max(0, self.box.findData(self.current)))
        self.box.blockSignals(False)

    def _select(self, node_id):
        """Choose a listed node, or none; an unknown ID counts as none."""
        node_id = node_id if any(node.GetID() == node_id for node in self.nodes) else ""
        changed, self.current = node_id != self.current, node_id
        self._show()
        if changed:
            node = self.do_currentNode()
            self.emit_("currentNodeChanged(vtkMRMLNode*)", node)
            self.emit_("currentNodeIDChanged(QString)", node_id)
            self.emit_("currentNodeChanged(bool)", node is not None)

    def set_nodeTypes(self, value):
        self._fill()

    set_noneEnabled = set_addEnabled = set_showHidden = set_showChildNodeTypes = set_noneDisplay = set_nodeTypes

    def get_currentNodeID(self):
        return self.current

    get_currentNodeId = get_currentNodeID

    def set_currentNodeID(self, node_id):
        self._select(node_id)

    set_currentNodeId = set_currentNodeID

    def do_setMRMLScene(self, scene):
        self._forget()
        self.scene = scene
        if scene:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self.tags = [scene.AddObserver(event, self._fill) for event in events]
        self._fill()

    def do_mrmlScene(self):
        return self.scene

    def do_currentNode(self):
        return self.scene.GetNodeByID(self.current) if self.scene and self.current else None

    def do_setCurrentNode(self, node):
        self._select(node if isinstance(node, str) else node.GetID() if node else "")

    def do_setCurrentNodeID(self, node_id):
        self._select(node_id)

    def do_setCurrentNodeIndex(self, index):
        self._select(self.nodes[index].GetID() if 0 <= index < len(self.nodes) else "")

    def do_nodeCount(self):
        return len(self.nodes)

    def do_nodeFromIndex(self, index):
        return self.nodes[index] if 0 <= index < len(self.nodes) else None

    def do_addAttribute(self, node_type, name, value=None):
        self.attributes[name] = value
        self._fill()

    def do_addNode(self, node_type=None):
        node_type = node_type or self.values["nodeTypes"][0]
        name = self.scene.GenerateUniqueName(self.values.get("baseName") or node_type.removeprefix("vtkMRML").removesuffix("Node"))
        node = self.scene.AddNewNodeByClass(node_type, name)
        if self.values["selectNodeUponCreation"]:  # before the signal, as qMRMLNodeComboBox::addNode
            self._select(node.GetID())
        self.emit_("nodeAddedByUser(vtkMRMLNode*)", node)
        return node
