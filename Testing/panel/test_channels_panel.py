"""The section of more channels: three selectors that show what the Controller has."""

import pytest


@pytest.fixture
def others(begin):
    import numpy as np
    import slicer

    volume, _ = begin()
    array = slicer.util.arrayFromVolume(volume)
    return [slicer.util.addVolumeFromArray(np.array(array), name=name) for name in ("T2", "FLAIR")]


def test_channels_are_chosen_refused_and_given_up(host, panel, others, picture):
    ui, channels = panel.ui, panel.controller.channels
    assert ui.channelsSection.collapsed and all(selector.enabled for selector in (ui.channelSelector1, ui.channelSelector3))
    host.click(ui.channelsSection)
    ui.channelSelector1.setCurrentNode(others[0])
    ui.channelSelector3.setCurrentNode(others[1])
    assert channels.nodes == others
    ui.channelSelector2.setCurrentNode(others[0])
    assert ui.channelSelector2.currentNode() is None and "among the volumes already" in panel.controller.message.sentence
    picture("channels")
    ui.channelSelector1.setCurrentNode(None)
    assert channels.nodes == others[1:]
    host.scene.RemoveNode(others[1])
    host.spin(0.2)
    assert channels.nodes == [] and ui.channelSelector3.currentNode() is None


def test_a_panel_that_is_closed_chooses_nothing_any_more(host, panel, others):
    controller = panel.controller
    panel.ui.channelSelector1.setCurrentNode(others[0])
    panel.close()
    panel.ui.channelSelector1.setCurrentNode(None)
    assert controller.channels.nodes == others[:1]


def test_without_inputs_there_are_none_to_choose(panel):
    assert not panel.ui.channelSelector1.enabled
