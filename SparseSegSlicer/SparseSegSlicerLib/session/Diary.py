"""What is said to the user now, and the log of what was said. No slicer, no qt."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable

from sparseseg.contract.errors import SparseSegError

from .States import Message

_LINES = 500


class Diary:
    """hidden() gives (text, what stands for it) pairs: names of nodes, which in a hospital may be those of patients, and logs are sent around."""

    def __init__(self, changed: Callable[[], None], hidden: Callable[[], Iterable[tuple[str, str]]]) -> None:
        self.message = Message("info", "Choose a volume and a segmentation.")
        self.lines: list[str] = []
        self._changed, self._hidden = changed, hidden

    def say(self, message: Message) -> None:
        if message != self.message:
            self.log(message.text())
        self.message = message
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
            self.say(Message("error", f"Unexpected failure: {type(error).__name__}: {error}", "Please report it with the log below."))

    @contextlib.contextmanager
    def complaining(self):
        try:
            yield
        except SparseSegError as error:
            self.complain(error)
