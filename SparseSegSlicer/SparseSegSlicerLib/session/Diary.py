"""What is said to the user now, and the log of what was said. No slicer, no qt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from sparseseg.contract.errors import SparseSegError

from ..i18n import tr as _
from .States import Message, Until

_LINES = 500


class Diary:
    """hidden() gives (text, what stands for it) pairs: names of nodes, which in a hospital may be those of patients, and logs are sent around.

    situation(until) is a value that changes when a message that belongs to `until` no longer holds; standing() is what is said then.
    """

    def __init__(
        self,
        changed: Callable[[], None],
        hidden: Callable[[], Iterable[tuple[str, str]]],
        situation: Callable[[Until], object],
        standing: Callable[[], Message],
    ) -> None:
        self.lines: list[str] = []
        self._changed, self._hidden, self._situation, self._standing = changed, hidden, situation, standing
        self._said: Message | None = None
        self._saidIn: object = None
        self._refused: Message | None = None  # what was said of the last request that failed

    @property
    def message(self) -> Message:
        """The last one, as long as it holds."""
        said = self._said
        return said if said is not None and self._situation(said.until) == self._saidIn else self._standing()

    def say(self, message: Message) -> None:
        if message != self.message:
            self.log(message.text())
        self._said, self._saidIn = message, self._situation(message.until)
        self._changed()

    def log(self, text: str) -> None:
        for name, word in self._hidden():
            if name:
                text = text.replace(name, word)
        self.lines = [*self.lines, f"{time.strftime('%H:%M:%S')}  {text}"][-_LINES:]

    def complain(self, error: BaseException) -> None:
        if isinstance(error, SparseSegError):
            self.say(Message("error", error.sentence, error.advice))
        else:
            sentence = _("Unexpected failure: {kind}: {error}").format(kind=type(error).__name__, error=error)
            self.say(Message("error", sentence, _("Please report it with the log below.")))

    @contextlib.contextmanager
    def complaining(self):
        """Around what the user asks for: what is said when it fails stands until something that is asked for succeeds."""
        try:
            yield
        except SparseSegError as error:
            self.complain(error)
            self._refused = self._said
        else:
            if self._said is not None and self._said is self._refused:
                self._said = None
                self._changed()
