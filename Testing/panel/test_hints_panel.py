"""The section of hints: what is chosen and ticked there is the Controller's, segment by segment, and outlives other choices."""

import pytest


@pytest.fixture
def sample(begin):
    return begin()


def namesIn(box):
    return [box.itemText(n) for n in range(box.count)]


def choose(panel, name):
    panel.ui.hintSegmentBox.currentIndex = namesIn(panel.ui.hintSegmentBox).index(name)


def test_it_is_collapsed_and_offers_nothing_without_a_segmentation(panel):
    ui = panel.ui
    assert ui.hintsSection.collapsed and ui.hintSegmentBox.count == 0
    for name in ("hintSegmentBox", "hintRoiSelector", "hintInsideSelector", "hintOutsideSelector", "hintOnePiece", "hintLeastMl"):
        assert not getattr(ui, name).enabled, name


def test_each_segment_has_its_own_hints(host, panel, sample, picture):
    ui = panel.ui
    host.click(ui.hintsSection)
    assert namesIn(ui.hintSegmentBox) == ["Liver", "Kidney", "Vessel", "Background (none of them)"]
    choose(panel, "Liver")
    host.click(ui.hintOnePiece)
    ui.hintMostMl.value = 20.0
    choose(panel, "Kidney")
    assert not ui.hintOnePiece.checked and ui.hintMostMl.value == 0
    choose(panel, "Liver")
    assert ui.hintOnePiece.checked and not ui.hintNoHoles.checked and ui.hintMostMl.value == 20
    entry = panel.controller.hintsOf("Liver")
    assert (entry.onePiece, entry.noHoles, entry.leastMl, entry.mostMl) == (True, False, 0.0, 20.0)
    picture("hints")


def test_points_that_are_made_here_are_placed_next_and_become_hints(host, panel, sample):
    ui = panel.ui
    choose(panel, "Vessel")
    ui.editor.setActiveEffectByName("Paint")
    ui.hintInsideSelector.addNode()
    node = panel.controller.hintsOf("Vessel").inside
    assert node is not None and node.GetDisplayNode() is not None and ui.editor.activeEffect() is None
    place = panel.hints._places["inside"]
    assert place.placeModeEnabled and place.currentNode() is node and place.placeMultipleMarkups == place.ForcePlaceMultipleMarkups
    node.AddControlPoint(0, 0, 0)
    host.spin(until=lambda: panel.controller.isSettled and panel.controller.strokes.hinted.hints is not None, timeout_s=30)
    choose(panel, "Kidney")
    assert ui.hintInsideSelector.currentNode() is None
    choose(panel, "Vessel")
    assert ui.hintInsideSelector.currentNode() is node
    host.scene.RemoveNode(node)
    host.spin(0.2)
    assert ui.hintInsideSelector.currentNode() is None and panel.controller.hintsOf("Vessel").inside is None


def test_the_background_has_points_alone(panel, sample):
    ui = panel.ui
    choose(panel, "Background (none of them)")
    assert ui.hintInsideSelector.enabled
    for name in ("hintRoiSelector", "hintOutsideSelector", "hintOnePiece", "hintNoHoles", "hintLeastMl", "hintMostMl"):
        assert not getattr(ui, name).enabled, name


def test_a_closed_scene_takes_hints_along_and_leaves_none(host, panel, sample):
    ui = panel.ui
    ui.hintRoiSelector.addNode()
    assert panel.controller.parameters.get("hints")
    host.close_scene()
    host.spin(0.2)
    assert panel.controller.parameters.get("hints") == {} and ui.hintSegmentBox.count == 0


def test_a_panel_that_is_closed_writes_nothing_any_more(host, panel, sample):
    controller = panel.controller
    choose(panel, "Kidney")
    panel.ui.hintRoiSelector.addNode()
    node = controller.hintsOf("Kidney").roi
    assert node is not None
    panel.close()
    panel.ui.hintRoiSelector.setCurrentNode(None)
    assert controller.hintsOf("Kidney").roi is node
