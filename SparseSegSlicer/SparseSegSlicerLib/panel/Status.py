"""What both faces show under the same names in their .ui files: the verbs' buttons, the progress, the message, and what is still missing."""

from ..i18n import duration, number
from ..i18n import tr as _
from ..session.Allowed import Action
from ..session.Checklist import Standing, checklist
from ..session.States import Message, State
from .Theme import lineHeight, wordStyle

_ALLOWED = {  # what a button does, for which it is enabled
    "segmentButton": (Action.SEGMENT, Action.STOP),
    "applyButton": (Action.APPLY,),
    "discardButton": (Action.DISCARD,),
    "nextSliceButton": (Action.NEXT_SLICE,),
    "markSliceButton": (Action.CHOOSE_SLICES,),
    "paintBackgroundButton": (Action.CHOOSE_SLICES,),
}
_STAGES = {  # of a run, as the engine names them
    "opening": _("opening"),
    "starting": _("starting"),
    "prior": _("growing"),
    "training": _("training"),
    "estimating": _("estimating"),
    "predicting": _("predicting"),
    "saving": _("saving"),
}


class Status:
    def __init__(self, ui, controller) -> None:
        self._ui, self._controller = ui, controller
        ui.messageLabel.minimumHeight = lineHeight(ui.messageLabel)  # so that nothing below jumps when there is nothing to say
        clicks = {
            "discardButton": controller.discard,
            "nextSliceButton": controller.jumpToNextSlice,
            "markSliceButton": controller.markShownSlice,
            "paintBackgroundButton": controller.paintBackground,
        }
        onClicks(ui, clicks)

    def segment(self) -> None:
        """One button begins and ends."""
        if self._controller.running:
            self._controller.stop()
        else:
            self._controller.train()

    def update(self) -> None:
        self._showButtons()
        self._showProgress()
        self.say(self._controller.message)
        self._ui.checklistLabel.text = checklist(self._controller.strokes, self._standing())

    def say(self, message: Message) -> None:
        label = self._ui.messageLabel
        label.text, label.styleSheet = message.text(), wordStyle(label, message.level)

    def offerSegmentOnly(self) -> None:
        """Where the session is on something else."""
        for name in _ALLOWED:
            getattr(self._ui, name).enabled = name == "segmentButton"
        self._ui.segmentButton.text = _("Segment")
        self._ui.checklistLabel.text = ""

    def _showButtons(self) -> None:
        ui, may = self._ui, self._controller.allowed()
        ui.segmentButton.text = _("Stop") if self._controller.running else _("Segment")
        for name, actions in _ALLOWED.items():
            getattr(ui, name).enabled = any(action in may for action in actions)

    def _showProgress(self) -> None:
        bar, progress = self._ui.progressBar, self._controller.report.progress
        if not self._controller.running:
            bar.value = 100 if self._controller.state is State.RESULT else 0
            bar.setFormat("")
        elif progress is None:
            bar.value = 0
            bar.setFormat(_("starting"))
        else:
            bar.value = round(100 * progress.fraction)
            bar.setFormat(_progressText(progress))

    def _standing(self) -> Standing:
        controller = self._controller
        if controller.running:
            return Standing.RUNNING
        if not controller.hasResult:
            return Standing.STROKES
        return Standing.RESULT if Action.APPLY in controller.allowed() else Standing.APPLIED


def onClicks(ui, calls) -> None:
    """calls: what each button does, by its name; each is called without arguments."""
    for name, call in calls.items():
        getattr(ui, name).connect("clicked()", lambda call=call: call())


def _progressText(progress) -> str:
    said = _("{stage}, step {step}").format(stage=_STAGES.get(progress.stage, progress.stage), step=number(progress.step))
    if progress.eta_seconds is None:
        return said
    return _("{said}, about {time} left").format(said=said, time=duration(progress.eta_seconds))
