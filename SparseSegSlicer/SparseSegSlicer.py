"""Slicer's entry to the module: what it is, sample data, reload, and a smoke test. Everything else is in SparseSegSlicerLib and sparseseg."""

import importlib
import sys
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

_HELP = _("""
<p>Segment any structure from a few annotated slices, when no pretrained model exists for it. A 3-D U-Net learns this one volume in a process
of its own, with a loss that is zero wherever you did not label.</p>
<ol>
<li><b>Paint.</b> Choose a volume and create a segmentation. Paint each structure on a few slices, in any orientation, and some of what is none
of them in <i>Background</i>. A slice that you segmented whole: press <i>Mark this slice complete</i> instead of painting background.</li>
<li><b>Segment.</b> The first preview comes within seconds; paint corrections where it is wrong, while training goes on.</li>
<li><b>Apply</b>, as often as you want. The result becomes ordinary segments with your names and colours. Ctrl+Z brings back what was there;
the strokes are kept, and painting goes on.</li>
</ol>
<p>The same session is an effect of the <i>Segment Editor</i>.</p>
<p>Keys: Ctrl+Shift+G segment or stop, Ctrl+Shift+M mark the slice complete, Ctrl+Shift+N next slice, Ctrl+Shift+R update now.
To try it: module <i>Sample Data</i>, <i>SparseSegPhantom</i>.</p>
""")


class SparseSegSlicer(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Sparse Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "SegmentEditor"]
        self.parent.contributors = ["SparseSegSlicer developers (SparseSegSlicer)"]
        self.parent.helpText = _HELP
        self.parent.acknowledgementText = _(
            "Method: Cicek et al., 3D U-Net: learning dense volumetric segmentation from sparse annotation, MICCAI 2016."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerEffect)


def registerSampleData():
    """A volume with strokes for the tutorial, made on the spot: nothing is downloaded."""
    import SampleData

    from SparseSegSlicerLib.scene.SampleSource import registerPhantom

    icons = Path(slicer.util.modulePath("SparseSegSlicer")).parent / "Resources" / "Icons"
    registerPhantom(SampleData, str(icons / "SparseSegPhantom.png"))


def registerEffect():
    """The second face: in every Segment Editor."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    folder = Path(slicer.util.modulePath("SparseSegSlicer")).parent
    effect.setPythonSource((folder / "SparseSegSlicerEffect" / "SegmentEditorEffect.py").as_posix())
    effect.self().register()


class SparseSegSlicerWidget(ScriptedLoadableModuleWidget):
    panel = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        from SparseSegSlicerLib.panel.Widget import Widget

        self.panel = Widget(self.resourcePath("UI/SparseSegSlicer.ui"))
        self.layout.addWidget(self.panel.uiWidget)
        if self.parent.isEntered:  # after Slicer's Reload, which enters the new panel no more
            self.enter()

    def enter(self):
        if self.panel is not None:  # setup may have failed
            self.panel.enter()

    def exit(self):
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self):
        if self.panel is not None:
            self.panel.close()
            self.panel = None

    def onReload(self):
        """Developer mode's Reload: the packages beside this file are loaded anew as well."""
        self.cleanup()
        shared = sys.modules.get("SparseSegSlicerLib.panel.SharedSession")
        if shared is not None:
            shared.SharedSession.closeCurrent()  # for the effect too, which begins anew when it is shown again
        for name in [n for n in sys.modules if n.split(".")[0] in ("SparseSegSlicerLib", "SparseSegSlicerEffect", "sparseseg")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        ScriptedLoadableModuleWidget.onReload(self)


class SparseSegSlicerLogic(ScriptedLoadableModuleLogic):
    """For scripts: `SparseSegSlicerLogic().makeController()`; poll it, as the panel's timer does."""

    def makeController(self):
        from SparseSegSlicerLib.session.Controller import Controller

        return Controller(slicer.mrmlScene)


class SparseSegSlicerTest(ScriptedLoadableModuleTest):
    """In Slicer: sample data, training with the real worker, apply and undo, on the panel itself."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_tutorial()

    def test_tutorial(self):
        from SparseSegSlicerLib.panel.SelfTest import runTutorial

        slicer.util.selectModule("SparseSegSlicer")
        skipped = runTutorial(slicer.modules.SparseSegSlicerWidget.panel)
        self.delayDisplay(" ".join([_("Test passed."), skipped]))
