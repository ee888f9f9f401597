"""A session whose engine works on a server: what is said of where it works, and of what goes wrong on the way there; with a scripted engine."""

import dataclasses

import pytest

pytest.importorskip("slicer")

from scripted_engine import Session, State, resultOf

from sparseseg.contract.errors import ServerError
from sparseseg.contract.protocol import Error, Ready, Warning

SERVER, ADDRESS = "anna@gpu.hospital.org", "ssh://anna@gpu.hospital.org:2222"
LOST = Warning("", 1, "connection", f"The connection to {SERVER} was lost; the engine goes on there.", "Trying again for 120 s.")
BACK = Warning("", 1, "connection", f"Connected to {SERVER} again.", "")
COMMAND = f"ssh -p 2222 {SERVER}"


@pytest.fixture
def session(scene_host, tmp_path):
    session = Session(scene_host, tmp_path)
    move(session, ADDRESS)
    session.told = []
    session.controller.serverFailed = lambda address, error: session.told.append((address, error.sentence, error.advice))
    yield session
    session.close()


def move(session, address):
    """The user chooses where the next run works."""
    session.launch = dataclasses.replace(session.launch, server=address)


def said(session, event):
    session.controller.run.says(event)
    session.spin(lambda: session.controller.message.sentence == event.sentence)
    return session.controller.message


def test_each_state_of_a_run_says_where_it_works(session):
    controller = session.controller
    session.start()
    assert controller.run.server == ADDRESS and controller.server == SERVER
    assert controller.message.text() == f"The engine is starting on {SERVER}. You can go on painting."
    controller.run.begins()
    session.spin(lambda: controller.state is State.TRAINING)
    assert controller.message.sentence.startswith(f"Training on {SERVER}.")
    controller.finish()
    assert controller.message.text() == f"The result is being computed on {SERVER}."


def test_on_this_computer_no_server_is_named(session):
    move(session, "")
    session.start()
    assert session.controller.server == ""
    assert session.controller.message.text() == "The engine is starting. You can go on painting."


def test_a_connection_that_is_lost_and_taken_up_again_is_told_and_the_run_goes_on(session):
    session.train()
    run = session.controller.run
    assert said(session, LOST).level == "warning"
    assert session.controller.running and session.controller.run is run
    assert said(session, BACK).level == "info"
    run.ends(resultOf())
    session.spin(lambda: session.controller.state is State.RESULT)
    assert session.told == []


def test_a_server_that_refuses_ends_the_run_in_a_sentence_and_its_command_is_handed_on(session):
    session.start()
    advice = f"See that `{COMMAND}` works in a terminal without a password; ssh-copy-id brings your key there."
    message = said(session, Error("", 0, ServerError.code, f"{SERVER} does not accept your key.", advice, fatal=True))
    assert message.level == "error" and session.controller.state is State.IDLE and session.controller.run is None
    assert message.advice.startswith('See that the command in the section "Engine" works'), "where it can be copied"
    assert session.told == [(ADDRESS, f"{SERVER} does not accept your key.", advice)]


def test_a_server_that_is_given_up_leaves_the_preview(session):
    session.segment()
    session.controller.train()
    session.spin(lambda: session.controller.state is State.STARTING)
    said(session, Error("", 1, ServerError.code, "The connection was lost, and could not be made again within 120 s.", "Start again.", fatal=True))
    assert session.controller.state is State.RESULT and session.controller.preview.labels is not None


def test_an_address_that_is_none_is_refused_before_anything_starts(session):
    move(session, "ssh://-oProxyCommand=x")
    session.controller.train()
    session.spin(lambda: session.controller.message.level == "error")
    assert "is no address of an engine." in session.controller.message.sentence
    assert session.controller.run is None and session.controller.state is State.IDLE


def test_segment_after_another_choice_goes_on_over_there(session):
    controller = session.controller
    move(session, "")
    session.segment()
    first = controller.run
    session.start()
    assert controller.run is first, "the same place: the same engine"
    controller.stop()
    session.spin(lambda: not controller.running)
    move(session, ADDRESS)
    session.start()
    assert controller.run is not first and controller.run.server == ADDRESS


def test_a_run_that_is_under_way_stays_where_it_is(session):
    session.train()
    run = session.controller.run
    move(session, "")
    run.says(Ready("open", 1, 0, 7, {}, "", ""))
    run.ends(resultOf())
    session.spin(lambda: session.controller.state is State.RESULT)
    assert session.controller.run is run
