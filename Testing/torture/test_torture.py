"""The short campaign, attack by attack; and that the campaign notices what it is there for."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sparseseg.contract.errors import InputError
from torture import campaign, files, fuzz, mutate
from torture.attacks import ATTACKS, FILES
from torture.painter import Painter
from torture.trial import Broken, Trial

SEED = 1


@pytest.fixture
def trial(tmp_path):
    return Trial("test", SEED, 0, tmp_path, quick=True)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.quick], ids=lambda attack: attack.name)
def test_promises_are_kept_under(attack):
    (outcome,) = campaign.run([attack], SEED, quick=True)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.tried
    assert not outcome.failures


def test_a_whole_campaign_is_large_enough():
    inputs = sum(attack.trials * attack.count for attack in ATTACKS if attack.inputs)
    assert inputs >= 1_000_000
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_the_page_names_each_attack_as_the_table_does():
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    rows = [f"| `{attack.name}` | {attack.what} |" for attack in ATTACKS]
    assert [row for row in rows if row not in page] == []
    promised = page.split("## What was tried")[0]
    assert [attack.name for attack in ATTACKS if f"`{attack.name}`" not in promised] == []


def test_each_format_of_files_is_tried():
    assert set(FILES) == set(files.FORMATS)


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    trials = [Trial("a", SEED, number, tmp_path / name) for number, name in ((3, "x"), (3, "y"), (4, "z")) if not (tmp_path / name).mkdir()]
    first, again, other = (trial.rng.random() for trial in trials)
    assert first == again != other


def test_damaged_bytes_and_altered_json_are_others_and_repeatable():
    data, text = b'{"a": 12, "b": [1, 2]}' * 20, '{"a": 12, "b": [1, {"c": null}]}'
    rngs = [fuzz.random.Random(n) for n in range(200)]
    assert len({mutate.damaged(data, rng) for rng in rngs}) > 150
    assert len({repr(mutate.altered(text, rng)) for rng in rngs}) > 100
    assert mutate.damaged(data, fuzz.random.Random(7)) == mutate.damaged(data, fuzz.random.Random(7))


# -- faults that the campaign must see


def test_strokes_of_another_revision_are_noticed(trial):
    painter = Painter(trial)
    assert painter.check_strokes() == 1
    painter.paint(whole=True)
    record = json.loads((painter.folder / "job.json").read_text())
    for revision, words in ((painter.revision, "not those of their revision"), (77, "never sent")):
        (painter.folder / "job.json").write_text(json.dumps({**record, "revision": revision}))
        with pytest.raises(Broken, match=words):
            painter.check_strokes()


def test_one_voxel_is_noticed(trial):
    painter = Painter(trial)
    annotation = np.load(painter.folder / "annotation.npy")
    annotation[3, 4, 5] ^= 1
    np.save(painter.folder / "annotation.npy", annotation)
    with pytest.raises(Broken, match="not those of their revision 1"):
        painter.check_strokes()


def test_words_that_are_not_true_are_noticed(trial):
    painter = Painter(trial)
    painter.sent[2] = painter.sent[1]
    preview, error = ({"event": kind, "id": "u2"} for kind in ("preview", "error"))
    painter.check_words([error])
    for said, words in (([preview], "revision 1 is on disk"), ([preview, error], "taken and refused")):
        with pytest.raises(Broken, match=words):
            painter.check_words(said)


def test_what_is_left_is_noticed(trial):
    painter = Painter(trial)
    for name, words in ((".dense.npy.12.part", "left in the job folder"), ("annotation-0000.npy", "superseded")):
        (painter.folder / name).touch()
        with pytest.raises(Broken, match=words):
            painter.check_nothing_left()
        (painter.folder / name).unlink()
    painter.check_nothing_left()


def crash(folder):
    """A fuzzer whose reader crashes at the fourth input, and fails at the sixth."""
    fatal, wrong = (fuzz.random.Random(f"{SEED}/torture.test_torture:crash/{number}").random() for number in (3, 5))

    def attempt(rng):
        number = rng.random()
        if number == fatal:
            os.abort()
        if number == wrong:
            raise KeyError("six")
        raise InputError("Refused.")

    return attempt


def test_a_crash_and_a_failure_are_counted_and_the_others_go_on(trial):
    fuzz.fuzzed(trial, "torture.test_torture:crash", 8)
    assert trial.tried == 8
    crashed, failed = trial.failures
    assert "input 3: the process ended with" in crashed
    assert "input 5: KeyError" in failed


def test_the_table_says_what_broke():
    outcomes = [
        campaign.Outcome(ATTACKS[0], tried=4),
        campaign.Outcome(ATTACKS[1], tried=1200, failures=[{"trial": 0, "words": "lost", "repeat": "make"}]),
    ]
    assert f"| `{ATTACKS[1].name}` | {ATTACKS[1].what} | 1,200 | 1 |" in campaign.table(outcomes)
    assert "1,204 faults and 0 inputs" in campaign.summary(outcomes, SEED, 60)
