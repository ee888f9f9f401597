"""The documents say what the code does: every example decodes, every message, file, code and setting that there is is named."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from sparseseg import worker
from sparseseg.annotation import unpainted
from sparseseg.contract import errors, hints, job, mirror, protocol
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints
from sparseseg.contract.job import JobRecord
from sparseseg.contract.protocol import COMMANDS, EVENTS, decode_command, decode_event, encode
from sparseseg.contract.settings import Settings
from sparseseg.session import known, network_voice, session

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ENGINE = ROOT / "Testing" / "benchmark" / "engine.py"


def text(name):
    return (DOCS / name).read_text(encoding="utf-8")


def json_blocks(name):
    return re.findall(r"^```json\n(.*?)^```$", text(name), re.MULTILINE | re.DOTALL)


EXAMPLES = [line for block in json_blocks("protocol.md") for line in block.splitlines()]


def rows_of(name, heading):
    """First cell of each row of the table whose first column has this heading, without the backticks."""
    table = text(name).split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [row.split("|")[1].strip().strip("`") for row in table.splitlines()[2:]]


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: line[:24])
def test_every_example_is_a_message_as_the_code_writes_it(line):
    data = json.loads(line)
    message = (decode_command if "command" in data else decode_event)(line)
    assert json.loads(encode(message)) == data


def test_every_message_has_an_example_and_a_row():
    assert {json.loads(line).get("command") or json.loads(line)["event"] for line in EXAMPLES} == {*COMMANDS, *EVENTS}
    assert rows_of("protocol.md", "command") == list(COMMANDS)
    assert rows_of("protocol.md", "event") == list(EVENTS)


def test_the_examples_carry_this_protocols_number():
    assert {json.loads(line)["protocol"] for line in EXAMPLES if '"ready"' in line} == {protocol.PROTOCOL_VERSION}


def test_every_error_code_is_listed_once():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.SparseSegError)]
    codes = {c.code for c in classes} | {protocol.ProtocolError.code} | set(re.findall(r'"(busy|memory|stuck)"', inspect.getsource(worker)))
    listed = rows_of("protocol.md", "error code")
    assert len(listed) == len(set(listed))
    assert set(listed) == codes


def test_exit_codes_are_those_of_the_errors():
    listed = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", text("protocol.md"), re.MULTILINE))
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.SparseSegError):
            assert listed[cls.code] == str(cls.exit_code)


def test_every_warning_code_of_the_engine_is_listed():
    said = "".join(map(inspect.getsource, (session, network_voice, known, unpainted)))
    used = set(re.findall(r'(?:host\.|_)warn(?:ing)?\(\s*"(\w+)"', said)) | {"overlap", "restarted", "file"}
    used |= set(re.findall(r'Warning\([^,]+, self\._revision, "(\w+)"', inspect.getsource(worker)))
    used |= set(re.findall(r'Warning\(event\.id, event\.revision, "(\w+)"', inspect.getsource(mirror))) | {errors.ServerError.code}
    assert set(rows_of("protocol.md", "warning code")) == used


def test_every_file_of_the_job_folder_is_named():
    names = [job.IMAGE, job.ANNOTATION, job.WEIGHTS, job.PRIOR, job.DENSE, job.UNCERTAINTY, job.MODEL, job.REPORT, job.EVENTS, job.LOG, job.RECORD]
    listed = rows_of("job-folder.md", "file")
    assert {*names, job.LOCK} <= set(listed)
    constants = {value for name, value in vars(job).items() if name.isupper() and isinstance(value, str) and not name.startswith("_")}
    assert constants <= set(listed)


def test_the_example_of_job_json_is_read():
    (block,) = json_blocks("job-folder.md")
    record = JobRecord.from_json(json.loads(block))
    assert record.classes.names == ["liver"]
    assert record.settings == Settings(time_budget_s=60)
    assert json.loads(block)["schema_version"] == job.SCHEMA_VERSION


def test_the_example_of_hints_is_read_and_every_key_has_a_row():
    (block,) = json_blocks("hints.md")
    table, grid = ClassTable.numbered(2, ["liver", "spleen"]), Geometry.from_axes((200, 300, 300), (1, 1, 1), (-150, -150, 0))
    liver, spleen = Hints.from_json(json.loads(block), table, grid).segments
    assert (liver.apart_from, liver.volume_ml, spleen.volume_ml) == ((2,), (900, 2500), (None, 600))
    assert (len(liver.inside), len(liver.outside), len(spleen.inside)) == (1, 1, 1)
    assert rows_of("hints.md", "key") == ["hints_version", "coordinates", "segments", *hints._SEGMENT_KEYS, "outside"]


def test_settings_named_in_the_method_exist():
    named = set(re.findall(r"`(\w+)`", text("method.md")))
    assert {"class_balance", "correction_weight", "pseudo_label_weight", "dice_weight"} <= named
    assert named <= {f.name for f in fields(Settings)}


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    """All parts in one process: most of its time is starting."""
    file, parts = tmp_path / "numbers.json", ["training", "norm", "memory", "weights", "prior", "dicom"]
    chosen = [word for part in parts for word in ("--only", part)]
    command = [sys.executable, str(ENGINE), "--quick", "--device", "cpu", *chosen, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.removeprefix("## ") for line in done.stdout.splitlines() if line.startswith("## ")] == parts
    numbers = json.loads(file.read_text(encoding="utf-8"))
    assert numbers["machine"]["usable cores"] >= 1
    assert all(numbers[part] or sys.platform == "win32" for part in parts)


def test_the_page_on_accuracy_names_every_method_and_part():
    sys.path.insert(0, str(ENGINE.parent))
    import accuracy

    assert rows_of("accuracy.md", "method") == list(accuracy.METHODS)
    assert all(f"--{part.replace('_', '-')}" in text("accuracy.md") for part in accuracy.PARTS)
