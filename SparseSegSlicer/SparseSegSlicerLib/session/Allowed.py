"""What the user may do now. Faces show it, and the Controller refuses what is not among it."""

from __future__ import annotations

from enum import Enum

from .States import RUNNING, State


class Action(Enum):
    SEGMENT = "segment"  # begin, or go on
    STOP = "stop"
    APPLY = "apply"
    DISCARD = "discard"
    UPDATE = "update"  # send the strokes now
    CHOOSE_SLICES = "choose slices"  # complete or not; align views
    SHOW_WEIGHTS = "show weights"
    NEXT_SLICE = "next slice"
    SAVE_MODEL = "save model"
    EXPORT = "export"
    LOAD = "load"


def allowed(controller) -> frozenset[Action]:
    """From the Controller's state, and what the scene holds."""
    state, preview = controller.state, controller.preview
    hasInputs, running, hasRun = state is not State.EMPTY, state in RUNNING, controller.hasRun
    here = not controller.frames.isLeft
    rules = {
        Action.SEGMENT: here and state in (State.IDLE, State.RESULT),
        Action.STOP: running,
        Action.APPLY: here and controller.hasResult and not controller.isApplying and not preview.isAppliedAs(controller.holding.token),
        Action.DISCARD: running or preview.labels is not None,
        Action.UPDATE: here and hasRun and state in (State.TRAINING, State.RESULT) and controller.strokesAreNew,
        Action.CHOOSE_SLICES: hasInputs,
        Action.SHOW_WEIGHTS: controller.strokes is not None or controller.weightMap.isShown,
        Action.NEXT_SLICE: hasInputs and bool(controller.report.nextSlices),
        Action.SAVE_MODEL: hasRun and state in (State.TRAINING, State.RESULT),
        Action.EXPORT: hasInputs,
        Action.LOAD: controller.volumeNode is not None,
    }
    return frozenset(action for action, may in rules.items() if may)
