"""The panel's end: Reload, quitting, and a setup that failed. Nothing that observes the scene stays, and nothing calls a panel that is closed."""

import gc
import sys

import pytest
from driving import MODULE


@pytest.fixture(autouse=True)
def modules():
    """Reload loads the packages anew; other tests go on with those that they have."""
    ours = lambda: {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("SparseSegSlicerLib", "sparseseg")}  # noqa: E731
    before = ours()
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def observers(host):
    """Of the scene and its nodes, and of what segmentations and volumes hold."""
    gc.collect()
    subjects = [host.scene, *(host.scene.GetNthNode(n) for n in range(host.scene.GetNumberOfNodes()))]
    subjects += [node.GetSegmentation() for node in subjects[1:] if node.IsA("vtkMRMLSegmentationNode")]
    return sum(str(subject).count("Tag: ") for subject in subjects)


@pytest.fixture
def reload(host, panel):
    import slicer

    def reload():
        slicer.modules.SparseSegSlicerWidget.onReload()
        host.spin()
        return slicer.modules.SparseSegSlicerWidget.panel

    return reload


def test_the_counter_sees_an_observer(host):
    before = observers(host)
    tag = host.scene.AddObserver("ModifiedEvent", lambda *_: None)
    assert observers(host) == before + 1
    host.scene.RemoveObserver(tag)


def test_reload_enters_the_new_panel_and_leaves_no_observer(host, panel, begin, reload):
    begin()
    before = observers(host)
    new = reload()
    assert new is not panel and new._entered and len(new._shortcuts) == 4
    assert observers(host) == before
    newest = reload()
    assert newest is not new and observers(host) == before


def test_reload_of_a_module_that_is_not_shown_enters_nothing(host, panel, reload):
    host.exit()
    assert not reload()._entered


def test_a_closed_panel_is_called_by_nothing(host, panel, begin):
    """As when Slicer quits: the panel is closed, then the scene is emptied, and Slicer leaves the module."""
    import slicer

    volume, _ = begin()
    selectors = panel.ui.volumeSelector, panel.ui.segmentationSelector
    panel.close()
    for selector in selectors:
        selector.setCurrentNode(None)
    selectors[0].setCurrentNode(volume)
    slicer.modules.SparseSegSlicerWidget.exit()
    slicer.modules.SparseSegSlicerWidget.enter()
    panel.close()
    slicer.modules.SparseSegSlicerWidget.cleanup()
    slicer.modules.SparseSegSlicerWidget.cleanup()
    host.close_scene()
    assert host.errors == []


def test_closing_leaves_no_observer(host, panel):
    """Of a second panel beside the first, which made the nodes that both need."""
    from SparseSegSlicerLib.panel.Widget import Widget

    host.exit()  # two panels that are shown would take the same keys
    before = observers(host)
    second = Widget(str(MODULE.parent / "Resources" / "UI" / "SparseSegSlicer.ui"))
    second.enter()
    assert observers(host) > before
    second.close()
    host.spin()
    assert observers(host) == before


def test_a_setup_that_failed_can_be_entered_and_left(host, monkeypatch):
    import slicer

    def broken(path):
        raise RuntimeError("no such file")

    monkeypatch.setattr(slicer.util, "loadUI", broken)
    with pytest.raises(RuntimeError):
        host.load_module(MODULE)
    host.enter()
    host.exit()
    slicer.modules.SparseSegSlicerWidget.cleanup()
    assert host.errors == []
