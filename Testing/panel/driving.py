"""What panel tests do again and again: wait, train, read the strokes."""

from pathlib import Path

MODULE = Path(__file__).resolve().parents[2] / "SparseSegSlicer" / "SparseSegSlicer.py"
PATIENCE_S = 120


def wait(host, panel, condition):
    def ended():
        assert panel.controller.message.level != "error", panel.controller.message.text() + "\n" + "\n".join(panel.controller.log)
        return condition()

    host.spin(until=ended, timeout_s=PATIENCE_S)
    host.spin(0.25)  # the panel follows at the next tick


def voxels(panel, node=None):
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import readStrokes

    return readStrokes(takeSnapshot(node or panel.controller.segmentationNode, panel.controller.volumeNode)).annotation


def voxelsOf(volume, segmentation):
    """An image, and what is painted on it, by segment IDs in order; on its own grid."""
    from SparseSegSlicerLib.scene.Grids import volumeArray
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import readStrokes

    return volumeArray(volume), readStrokes(takeSnapshot(segmentation, volume)).annotation


def train(host, panel):
    from SparseSegSlicerLib.session.Controller import State

    host.click(panel.ui.segmentButton)
    wait(host, panel, lambda: panel.controller.running)
    wait(host, panel, lambda: panel.controller.state is State.RESULT)


def apply(host, panel):
    before = _applied(panel)
    host.click(panel.ui.applyButton)  # while the click is looked after it may have begun and ended
    wait(host, panel, lambda: not panel.controller.isApplying)
    assert _applied(panel) != before


def _applied(panel):
    """Which Apply the segmentation holds, and where the last one went."""
    return panel.controller.holding.token, panel.controller.parameters.getNode("applied")
