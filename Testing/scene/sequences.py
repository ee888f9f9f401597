"""A sequence of volumes with its browser and proxy, by Slicer's own logic."""

import numpy as np
import slicer
from scenes import makeVolume


def makeSequence(scene, frames=3, shape=(3, 4, 5)):
    """(browser, proxy volume, go): frame n holds n everywhere; go(n) moves the browser to it, as its slider does."""
    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(scene)  # which registers the classes
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "heart")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    volume = makeVolume(scene, shape=shape)
    for n in range(frames):
        slicer.util.updateVolumeFromArray(volume, np.full(shape, n, np.int16))
        sequence.SetDataNodeAtValue(volume, f"{n * 0.5}")
    scene.RemoveNode(volume)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "beats")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())

    def go(index):
        browser.SetSelectedItemNumber(index)
        logic.UpdateProxyNodesFromSequences(browser)

    go(0)
    return browser, browser.GetProxyNode(sequence), go
