"""A message goes when what it belongs to has changed; the checklist says what to do next."""

import pytest

pytest.importorskip("slicer")

from sparseseg.contract.errors import InputError
from SparseSegSlicerLib.scene.Hinting import Hinted
from SparseSegSlicerLib.session.Checklist import Standing, checklist
from SparseSegSlicerLib.session.Diary import Diary
from SparseSegSlicerLib.session.States import STANDING, Message, State, Until
from SparseSegSlicerLib.session.Training import Training


class Situation:
    """What a session is in, as far as messages are concerned."""

    def __init__(self):
        self.state, self.values = State.IDLE, dict.fromkeys(Until, 0)
        self.diary = Diary(lambda: None, lambda: (), lambda until: self.values[until], lambda: STANDING[self.state])


@pytest.mark.parametrize("until", Until)
def test_a_message_stands_until_what_it_belongs_to_has_changed(until):
    now = Situation()
    message = Message("warning", "Something.", "Do something.", until)
    now.diary.say(message)
    for other in set(Until) - {until}:
        now.values[other] += 1
    assert now.diary.message is message
    now.values[until] += 1
    assert now.diary.message is STANDING[State.IDLE]
    now.state = State.RESULT
    assert "press Apply" in now.diary.message.text()


def test_each_state_has_something_to_say_but_idle_where_the_checklist_says_it():
    assert set(STANDING) == set(State)
    assert [state for state in State if not STANDING[state].sentence] == [State.IDLE]


def test_a_complaint_goes_when_something_that_is_asked_for_succeeds():
    now = Situation()
    with now.diary.complaining():
        raise InputError("There is no view.", "Choose one.")
    assert now.diary.message.level == "error"
    now.values[Until.STROKES] += 1
    assert now.diary.message.level == "error"
    with now.diary.complaining():
        pass
    assert now.diary.message is STANDING[State.IDLE]


def test_a_complaint_of_the_engine_stays_whatever_else_succeeds():
    now = Situation()
    now.diary.complain(InputError("The engine stopped.", "Press Segment."))
    with now.diary.complaining():
        pass
    assert now.diary.message.sentence == "The engine stopped."


def test_the_log_keeps_what_was_said():
    now = Situation()
    now.diary.say(Message("info", "One."))
    now.values[Until.STATE] += 1
    now.diary.say(Message("info", "One."))
    assert sum("One." in line for line in now.diary.lines) == 2


@pytest.fixture
def strokes():
    """Of two structures and background on four slices."""
    from types import SimpleNamespace as Some

    structures = (Some(id="a", name="Liver"), Some(id="b", name="Kidney"))
    rows = [Some(voxels={"a": 9, "bg": 5})] * 3 + [Some(voxels={"b": 2})]
    return Some(slices=rows, complete=(), hinted=Hinted(), classes=Some(segments=structures, background=Some(id="bg", name="Background")))


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (Standing.STROKES, "Ready to segment."),
        (Standing.RUNNING, "Paint corrections meanwhile; Stop ends with the result so far."),
        (Standing.RESULT, "Paint where the preview is wrong, or press Apply."),
        (Standing.APPLIED, "The result is applied; paint on where it is wrong."),
    ],
)
def test_the_checklist_says_what_to_do_next(strokes, standing, said):
    assert checklist(strokes, standing) == f"Liver on 3 slices, Kidney on 1 slice; background. {said}"


def test_what_is_missing_is_said_before_anything_else(strokes):
    strokes.slices = strokes.slices[3:]
    assert checklist(strokes, Standing.RESULT) == "Kidney on 1 slice. Paint some background too, or mark a slice complete."
    strokes.slices = []
    assert checklist(strokes, Standing.RESULT) == "Paint a structure on a few slices."


def test_segment_waits_for_what_was_painted_while_older_strokes_were_read():
    """Pressed right after the first background stroke, it must not end in the complaint that there is none."""
    from types import SimpleNamespace as Some

    said = []
    session = Some(isSettled=False, hasRun=False, strokes=None, changed=lambda: None, say=said.append, feed=Some(isSettled=False, isReading=True))
    training, problem = Training(session, launch=None), InputError("No background is labelled.", "Paint some.")
    training.train()
    training.onStrokes(problem)
    assert said == [] and training.isUrgent
    session.isSettled = True
    training.onStrokes(problem)
    assert said == [Message("warning", problem.sentence, problem.advice, Until.STROKES)] and not training.isUrgent
