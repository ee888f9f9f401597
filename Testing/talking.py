"""An engine, near or far, and all that it said."""

import time

from sparseseg.contract.protocol import Event, Open, Ready

PATIENCE_S = 60.0  # for one event on a slow, busy machine; not a measure of speed


class Talk:
    """`until` waits for the first event that fits. client: a WorkerClient, or one of its kind."""

    def __init__(self, client):
        self.client = client
        self.events: list[Event] = []

    def until(self, kind, patience_s=PATIENCE_S, **wanted):
        """The next event of this class whose fields are as wanted; earlier ones are kept in `events`."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            event = self.client.wait(0.1)
            if event is None:
                continue
            self.events.append(event)
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in wanted.items()):
                return event
        raise AssertionError(f"no {kind.__name__} {wanted} in {patience_s} s; got {self.events[-5:]}\n{self.client.log}")

    def open(self, folder):
        self.client.send(Open("open", str(folder), "cpu"))
        return self.until(Ready, id="open")
