"""Slicer's side of the Segment Editor effect: what it is called and looks like, and when it comes and goes. The rest is panel/EffectPanel.

Slicer loads this file as a module that is named as its folder, and makes the class for each editor. It lasts as long as the editor, through a
reload of everything else; so what it needs of that is imported when it is needed.
"""

from pathlib import Path

import qt
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

_RESOURCES = Path(__file__).resolve().parents[1] / "Resources"


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    def __init__(self, scriptedEffect):
        scriptedEffect.name = "Sparse Segmentation"  # in the scene and for scripts, so in one language
        scriptedEffect.title = _("Sparse Segmentation")
        scriptedEffect.perSegment = False
        scriptedEffect.showEffectCursorInSliceView = False
        scriptedEffect.showEffectCursorInThreeDView = False
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self.panel = None

    def clone(self):
        """For another editor."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        cloned = effects.qSlicerSegmentEditorScriptedEffect(None)
        cloned.setPythonSource(Path(__file__).as_posix())
        return cloned

    def icon(self):
        return qt.QIcon(str(_RESOURCES / "Icons" / "SparseSegSlicer.png"))

    def helpText(self):
        return _(
            "<html>Segments the volume from strokes on a few slices. Paint each structure and some <i>Background</i> with the other effects, press "
            "<b>Segment</b>, and paint corrections where the preview is wrong: it follows, whichever effect is active. <b>Apply</b> makes ordinary "
            "segments, in one undo step.</html>"
        )

    def activate(self):
        if self.panel is None or self.panel.isClosed:  # not before: an editor that never shows it needs no session
            from SparseSegSlicerLib.panel.EffectPanel import EffectPanel

            self.panel = EffectPanel(self.scriptedEffect, str(_RESOURCES / "UI" / "SparseSegSlicerEffect.ui"))
        self.panel.enter()

    def deactivate(self):
        if self.panel is not None:
            self.panel.exit()

    def sourceVolumeNodeChanged(self):
        if self.panel is not None:
            self.panel.follow()

    def updateGUIFromMRML(self):
        if self.panel is not None:
            self.panel.update()

    def cleanup(self):
        """The editor goes."""
        if self.panel is not None:
            self.panel.leave()
