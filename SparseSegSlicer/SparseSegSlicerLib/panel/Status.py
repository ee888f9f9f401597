"""What both faces show under the same names in their .ui files: the verbs' buttons, the progress, the message, and what is still missing."""

from ..session.Allowed import Action
from ..session.Checklist import checklist
from ..session.States import Message, State

_ALLOWED = {  # what a button does, for which it is enabled
    "segmentButton": (Action.SEGMENT, Action.STOP),
    "applyButton": (Action.APPLY,),
    "discardButton": (Action.DISCARD,),
    "nextSliceButton": (Action.NEXT_SLICE,),
    "markSliceButton": (Action.CHOOSE_SLICES,),
    "paintBackgroundButton": (Action.CHOOSE_SLICES,),
}
_LEVEL_STYLE = {"info": "", "warning": "color: #b9770e", "error": "color: #c0392b; font-weight: bold"}


class Status:
    def __init__(self, ui, controller) -> None:
        self._ui, self._controller = ui, controller
        clicks = {
            "discardButton": controller.discard,
            "nextSliceButton": controller.jumpToNextSlice,
            "markSliceButton": controller.markShownSlice,
            "paintBackgroundButton": controller.paintBackground,
        }
        for name, call in clicks.items():
            getattr(ui, name).connect("clicked()", lambda call=call: call())

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
        self._ui.checklistLabel.text = checklist(self._controller.strokes)

    def say(self, message: Message) -> None:
        label = self._ui.messageLabel
        label.text, label.styleSheet = message.text(), _LEVEL_STYLE[message.level]

    def offerSegmentOnly(self) -> None:
        """Where the session is on something else."""
        for name in _ALLOWED:
            getattr(self._ui, name).enabled = name == "segmentButton"
        self._ui.segmentButton.text = "Segment"
        self._ui.checklistLabel.text = ""

    def _showButtons(self) -> None:
        ui, may = self._ui, self._controller.allowed()
        ui.segmentButton.text = "Stop" if self._controller.running else "Segment"
        for name, actions in _ALLOWED.items():
            getattr(ui, name).enabled = any(action in may for action in actions)

    def _showProgress(self) -> None:
        bar, progress = self._ui.progressBar, self._controller.report.progress
        if not self._controller.running:
            bar.value = 100 if self._controller.state is State.RESULT else 0
            bar.setFormat("")
        elif progress is None:
            bar.value = 0
            bar.setFormat("starting")
        else:
            bar.value = round(100 * progress.fraction)
            left = "" if progress.eta_seconds is None else f", about {progress.eta_seconds:.0f} s left"
            bar.setFormat(f"{progress.stage}, step {progress.step}{left}")
