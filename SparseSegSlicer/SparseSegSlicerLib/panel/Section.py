"""A section of the panel that shows what the Controller has, and writes what the user changes."""


class Section:
    """`_isOurs`: whether what widgets signal now is not the user's choice, as they are being filled, or lose their scene after `close`."""

    def __init__(self) -> None:
        self._isOurs = False

    def close(self) -> None:
        self._isOurs = True

    def update(self) -> None:
        if self._isOurs:
            return
        self._isOurs = True
        try:
            self._show()
        finally:
            self._isOurs = False

    def _show(self) -> None:
        raise NotImplementedError
