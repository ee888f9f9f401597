"""A session without a process around it: its host, and how an annotation is sent."""

import numpy as np


class Host:
    """Remembers what it was told; `on_tick` may do anything."""

    def __init__(self):
        self.previews, self.boxes, self.warnings, self.stages, self.updates, self.checks = [], [], [], [], [], []
        self.finishing = self._has_taken = False
        self.on_tick = lambda stage, step: None

    def tick(self, stage, step=0, *_, **__):
        self.stages.append(stage)
        self.on_tick(stage, step)

    @property
    def update_waits(self):
        return bool(self.updates)

    def preview(self, file, source, step, revision, box):
        """Keeps what the user sees then: a box is put into the preview before it."""
        part = np.load(file)
        dense = self.previews[-1][2].copy() if box is not None and self.previews else part
        if box is not None:
            assert part.shape == tuple(s.stop - s.start for s in box)
            dense[box] = part
        self.boxes.append(box)
        self.previews.append((source, revision, dense))

    def check(self, places, revision):
        self.checks.append((places, revision))

    def warning(self, code, sentence, advice):
        self.warnings.append((code, sentence))

    def take_update(self):
        self._has_taken |= self.update_waits
        return self.updates.pop(0) if self.updates else None

    @property
    def has_sent(self):
        """Whether there ever was an update for a run."""
        return self.update_waits or self._has_taken


def send(running, revision, annotation, box=None):
    """A whole annotation, or a box of it, as a host sends it."""
    name = f"annotation-{revision:04d}.npy"
    np.save(running.job.path(name), annotation if box is None else annotation[box])
    running.update(name, revision, [], None if box is None else [[s.start, s.stop] for s in box])
