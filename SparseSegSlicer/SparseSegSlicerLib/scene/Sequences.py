"""Volumes in time: the proxy of a sequence, whose voxels are another frame's when its browser moves. No qt; nodes are only read."""

from __future__ import annotations

from typing import NamedTuple

from ..i18n import tr as _
from .Nodes import nodesOf

_BROWSERS = "vtkMRMLSequenceBrowserNode"


class Frame(NamedTuple):
    """What a proxy volume shows. index: from 0. words: for the user, who counts from 1."""

    browser: object
    index: int
    words: str


def frameOf(volumeNode) -> Frame | None:
    """None where the volume is no sequence's proxy, or its browser shows nothing."""
    scene = None if volumeNode is None else volumeNode.GetScene()
    if scene is None:
        return None
    browser = next((node for node in nodesOf(scene, _BROWSERS) if node.IsProxyNodeID(volumeNode.GetID())), None)
    index = -1 if browser is None else browser.GetSelectedItemNumber()
    return Frame(browser, index, frameWords(browser, index)) if 0 <= index < browser.GetNumberOfItems() else None


def frameWords(browser, index: int) -> str:
    """For example "frame 3 of 20 (time 1.2 s)"."""
    master, count = browser.GetMasterSequenceNode(), browser.GetNumberOfItems()
    if master is None or index >= count:
        return _("frame {number}").format(number=index + 1)
    at = " ".join(text for text in (master.GetIndexName(), master.GetNthIndexValue(index), master.GetIndexUnit()) if text)
    return _("frame {number} of {count} ({at})").format(number=index + 1, count=count, at=at)
