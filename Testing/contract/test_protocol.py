"""The pipe: every message there and back, one ASCII line each; and what is no message is refused in words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.protocol import (
    COMMANDS,
    EVENTS,
    MAX_LINE,
    PROTOCOL_VERSION,
    Cancel,
    Check,
    Close,
    Command,
    Device,
    Error,
    Finish,
    Open,
    Predict,
    Preview,
    Progress,
    ProtocolError,
    Ready,
    Result,
    Train,
    Update,
    Warning,
    decode_command,
    decode_event,
    encode,
)

MESSAGES = [
    Open("1", "/jobs/ä b", "cuda:0"),
    Open("1", "/jobs/a"),
    Train("2", {"steps": 5, "mirror": True, "learning_rate": 0.5, "nested": {"a": [1, None]}}, "model.pt", False),
    Train("2"),
    Update("3", "annotation-2.npy", 2, [[0, 5], [2, 7]]),
    Update("3", "annotation-2.npy", 2, [], [[0, 5], [2, 7], [1, 2]]),
    Finish("4"),
    Cancel("5"),
    Predict("6", "model.pt"),
    Close("7"),
    Ready("", 0, 1, 4711, {"torch": "2"}, "CPU", "no CUDA device was found", "/jobs/a", "12 voxels"),
    Ready("1", 1, 2, 4711, {"torch": "2"}, "", "", "/jobs/a", "12 voxels"),
    Device("2", 1, "CPU", "no CUDA device was found"),
    Progress("2", 1, "training", 3, 1.5, None, 0.25, {"dice": 0.5}, {"Segment_1": 0.9}),
    Progress("2", 1, "training", 3, 1, 60.5, 0, {}, {}),
    Preview("2", 1, "/jobs/a/preview-1.npy", "network", 3, 1.5),
    Preview("2", 1, "/jobs/a/preview-1.npy", "growing", 3, 1.5, [[0, 5], [2, 7], [1, 2]]),
    Result("2", 1, "dense.npy", "uncertainty.npy", "model.pt", "report.json", "budget", 9, 2.5, {"a": 0.5}, 0.4, [[0, 4]]),
    Check("2", 1, []),
    Check("", 2, [{"axis": 0, "index": 4, "box": [[4, 5], [1, 3], [2, 7]], "sureness": 0.9, "sentence": "Slice 4 ..."}]),
    Warning("2", 1, "memory", "It ran out of memory.", "Close programs."),
    Error("2", 1, "annotation", "Nothing is labelled.", "Paint.", True),
]
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too, as undecodable file names have them


def decode(line):
    return (decode_command if "command" in json.loads(line) else decode_event)(line)


def is_one_line(text):
    return text.isascii() and text.endswith("\n") and text.count("\n") == 1 and "\r" not in text


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.kind)
def test_every_message_comes_back_as_it_was(message):
    line = encode(message)
    assert is_one_line(line)
    assert decode(line) == message
    assert type(decode(line)) is type(message)


def test_there_is_an_example_of_every_message():
    assert {type(m) for m in MESSAGES} == {*COMMANDS.values(), *EVENTS.values()}
    assert sorted(COMMANDS) == ["cancel", "close", "finish", "open", "predict", "train", "update"]
    assert sorted(EVENTS) == ["check", "device", "error", "preview", "progress", "ready", "result", "warning"]


def test_the_line_itself_is_as_documented():
    assert (
        encode(Update("a\n", "ü.npy", 2, [[0, 5]]))
        == r'{"command":"update","id":"a\n","annotation":"\u00fc.npy","revision":2,"complete_slices":[[0,5]],"box":[]}' + "\n"
    )


@given(TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=3))
def test_any_text_comes_back_on_one_line(id_, path, settings):
    message = Train(id_, settings, path)
    line = encode(message)
    assert is_one_line(line)

    def joined(text):  # JSON cannot tell a pair of surrogates from the character they stand for
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    assert decode_command(line) == Train(joined(id_), {joined(k): joined(v) for k, v in settings.items()}, joined(path))


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.lists(st.lists(st.integers(), max_size=3), max_size=3))
def test_any_number_comes_back_exactly(number, whole, slices):
    message = Result("", whole, "", "", "", "", "", whole, number, {"a": number}, number, slices)
    assert decode_event(encode(message)) == message


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_lacks_is_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(Preview("1", 1, "f", "prior", 0, number))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_json_lacks_are_refused_when_they_come(number):
    with pytest.raises(ProtocolError, match=f"{number} is no number that a message may hold"):
        decode_event(f'{{"event":"preview","id":"","revision":1,"file":"f","source":"s","step":1,"seconds":{number}}}')
    with pytest.raises(ProtocolError, match=number):
        decode_command(f'{{"command":"train","id":"1","settings":{{"any":[{number}]}}}}')


def test_a_whole_number_too_large_for_a_fraction_is_refused_as_one():
    with pytest.raises(ProtocolError, match="seconds must be float"):
        decode_event(json.dumps({**PREVIEW, "seconds": 10**400}))


OPEN = {"command": "open", "id": "1", "job": "a", "protocol": PROTOCOL_VERSION}
UPDATE = {"command": "update", "id": "1", "annotation": "a.npy", "revision": 2}
PREVIEW = {"event": "preview", "id": "1", "revision": 1, "file": "f", "source": "prior", "step": 0, "seconds": 1.0}
PROGRESS = {
    "event": "progress",
    "id": "1",
    "revision": 1,
    "stage": "s",
    "step": 0,
    "seconds": 1,
    "eta_seconds": None,
    "fraction": 0,
    "loss": {},
    "estimate": {},
}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({**OPEN, "command": "reopen"}, "Unknown command 'reopen'.*Known: cancel, close, finish, open"),
        ({**OPEN, "command": ["open"]}, r"Unknown command \['open'\]"),
        ({"id": "1"}, "Unknown command None"),
        ({"event": "ready", "id": "1"}, "Unknown command None"),
        ({"command": "open", "id": "1"}, "open: job is missing"),
        ({"command": "finish"}, "finish: id is missing"),
        ({**OPEN, "job": None}, "open: job must be str, got None"),
        ({**OPEN, "id": 1}, "open: id must be str, got 1"),
        ({**UPDATE, "revision": True}, "update: revision must be int, got True"),
        ({**UPDATE, "revision": 2.0}, "update: revision must be int, got 2.0"),
        ({**UPDATE, "revision": "2"}, "update: revision must be int, got '2'"),
        ({**UPDATE, "complete_slices": [[0, 1], [1, "2"]]}, "complete_slices must be list"),
        ({**UPDATE, "complete_slices": [[0, False]]}, "complete_slices must be list"),
        ({**UPDATE, "complete_slices": [3]}, "complete_slices must be list"),
        ({**UPDATE, "complete_slices": {}}, "complete_slices must be list"),
        ({"command": "train", "id": "1", "settings": []}, "train: settings must be dict"),
        ({"command": "train", "id": "1", "resume": 1}, "train: resume must be bool, got 1"),
    ],
)
def test_a_command_that_is_none_is_refused(message, words):
    with pytest.raises(ProtocolError, match=words):
        decode_command(json.dumps(message))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({**PREVIEW, "event": "view"}, "Unknown event 'view'.*Known: check, device, error, preview"),
        (OPEN, "Unknown event None"),
        ({**PREVIEW, "seconds": True}, "preview: seconds must be float, got True"),
        ({**PREVIEW, "seconds": "1"}, "preview: seconds must be float, got '1'"),
        ({**PROGRESS, "eta_seconds": "soon"}, "progress: eta_seconds must be float | None, got 'soon'"),
        ({**PROGRESS, "eta_seconds": False}, "eta_seconds must be"),
        ({**PROGRESS, "loss": {"dice": None}}, "progress: loss must be dict"),
        ({**PROGRESS, "loss": {"dice": True}}, "progress: loss must be dict"),
        ({k: v for k, v in PROGRESS.items() if k != "eta_seconds"}, "progress: eta_seconds is missing"),
    ],
)
def test_an_event_that_is_none_is_refused(message, words):
    with pytest.raises(ProtocolError, match=words):
        decode_event(json.dumps(message))


def test_whole_numbers_serve_where_fractions_are_expected():
    assert decode_event(json.dumps({**PREVIEW, "seconds": 3})).seconds == 3
    assert decode_event(json.dumps({**PROGRESS, "eta_seconds": 3})).eta_seconds == 3


def test_fields_that_this_version_does_not_know_are_ignored():
    assert decode_command(json.dumps({**OPEN, "priority": [1], "kind": "close", "event": "ready"})) == Open("1", "a")


def test_optional_fields_take_their_defaults_and_share_no_list():
    first, second = (decode_command(json.dumps(UPDATE)) for _ in range(2))
    assert first == Update("1", "a.npy", 2, [])
    assert first.complete_slices is not second.complete_slices


@pytest.mark.parametrize(
    "line", ["", "\n", "open", "{", '{"command":"finish","id":"1"', "[1]", "3", "null", '"open"', "\0", "{'command': 'finish'}", "9" * 9999]
)
def test_garbage_is_refused(line):
    with pytest.raises(ProtocolError, match="Not a JSON object"):
        decode_command(line)


@given(st.text())
def test_no_text_does_anything_but_be_refused(text):
    for decoder in (decode_command, decode_event):
        with pytest.raises(ProtocolError):
            decoder(text)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"id":' * 100_000, '{"command":"open","id":' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_deep_nesting_is_refused(line):
    with pytest.raises(ProtocolError, match="Not a JSON object"):
        decode_command(line)


def test_a_line_that_is_too_long_is_refused_unread():
    line = json.dumps({"command": "open", "id": "1", "job": "a" * MAX_LINE})
    with pytest.raises(ProtocolError, match=rf"A line of {len(line)} characters is longer than the {MAX_LINE}"):
        decode_command(line)
    longest = encode(Open("1", "a" * (MAX_LINE - len(encode(Open("1", ""))))))
    assert len(longest) == MAX_LINE
    assert decode_command(longest).id == "1"


def test_a_line_that_is_too_long_is_not_sent():
    longest = "a" * (MAX_LINE - len(encode(Open("1", ""))))
    with pytest.raises(ProtocolError, match=f"A line of {MAX_LINE + 1} characters is longer than the {MAX_LINE}"):
        encode(Open("1", longest + "a"))


def test_a_refusal_quotes_no_more_than_the_start_of_a_line():
    for line in ("x" * 900_000, json.dumps({**OPEN, "id": ["y" * 900_000]})):
        with pytest.raises(ProtocolError) as refusal:
            decode_command(line)
        assert len(str(refusal.value)) < 300


def test_commands_and_events_have_one_kind_each():
    for kind, cls in {**COMMANDS, **EVENTS}.items():
        assert cls.kind == kind
        assert cls.__name__.lower() == kind
        assert issubclass(cls, Command) == (kind in COMMANDS)
    assert PROTOCOL_VERSION == 4


def test_a_host_that_does_not_name_its_protocol_is_an_old_one():
    assert decode_command('{"command":"open","id":"1","job":"a"}') == Open("1", "a", protocol=1)
