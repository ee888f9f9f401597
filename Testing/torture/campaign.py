"""The campaign: trials of all attacks, two at a time; a table in Markdown, torture.json, and for each failure the command that repeats it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .trial import Broken, Trial


@dataclass(frozen=True)
class Attack:
    """`trials` and `quick` are how often it is tried in the whole campaign and in the short one; `missing` says why it cannot be tried here."""

    run: Callable[[Trial], None]
    what: str
    trials: int
    quick: int
    count: int = 0  # inputs that a trial tries; 0: it is about faults, which happen
    missing: Callable[[], str] = lambda: ""

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def inputs(self) -> bool:
        return self.count > 0


@dataclass
class Outcome:
    attack: Attack
    trials: int = 0  # to come
    tried: int = 0
    seconds: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: str = ""


def run(attacks: Sequence[Attack], seed: int, quick: bool, jobs: int = 1, only_trial: int | None = None) -> list[Outcome]:
    """All trials; their order changes nothing about any of them."""
    outcomes = {attack.name: Outcome(attack, skipped=attack.missing()) for attack in attacks}
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, ThreadPoolExecutor(jobs) as pool:
        trials = []
        for attack in attacks:
            if not outcomes[attack.name].skipped:
                numbers = range(attack.quick if quick else attack.trials) if only_trial is None else [only_trial]
                trials += [pool.submit(_try, attack, seed, number, quick, Path(folder)) for number in numbers]
                outcomes[attack.name].trials = len(numbers)
        try:
            for trial in as_completed(trials):
                name, number, tried, seconds, failures = trial.result()
                outcome = outcomes[name]
                outcome.trials -= 1
                outcome.tried += tried
                outcome.seconds += seconds
                for words in failures:
                    repeat = f'make torture ARGS="--seed {seed} --only {name} --trial {number}{" --quick" if quick else ""}"'
                    outcome.failures.append({"trial": number, "words": words, "repeat": repeat})
                    print(f"BROKEN {name}: {words}\n       {repeat}", flush=True)
                if not outcome.trials:
                    print(f"{name}: {outcome.tried:,} tried, {len(outcome.failures)} broken, {outcome.seconds:.0f} s", flush=True)
        except BaseException:  # Ctrl-C: those at work end, no other begins
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return list(outcomes.values())


def _try(attack: Attack, seed: int, number: int, quick: bool, parent: Path) -> tuple[str, int, int, float, list[str]]:
    folder = Path(tempfile.mkdtemp(prefix=f"{attack.name}-{number}-", dir=parent))
    start = time.monotonic()
    trial = Trial(attack.name, seed, number, folder, quick)
    try:
        attack.run(trial)
    except Broken as error:
        trial.broke(str(error))
    except Exception as error:  # a fault of the attack is no kept promise
        trial.broke("".join(traceback.format_exception(error)[-3:]).strip())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return attack.name, number, trial.tried, time.monotonic() - start, trial.failures


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: what was tried how often, and what broke."""
    lines = ["| attack | what is done | tried | broken |", "|---|---|---:|---:|"]
    for outcome in outcomes:
        tried = f"skipped: {outcome.skipped}" if outcome.skipped else f"{outcome.tried:,}"
        lines.append(f"| `{outcome.attack.name}` | {outcome.attack.what} | {tried} | {len(outcome.failures)} |")
    return "\n".join(lines)


def count(outcomes: Sequence[Outcome], inputs: bool) -> int:
    return sum(outcome.tried for outcome in outcomes if outcome.attack.inputs == inputs)


def summary(outcomes: Sequence[Outcome], seed: int, seconds: float) -> str:
    broken = sum(len(outcome.failures) for outcome in outcomes)
    machine = f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    tried = f"{count(outcomes, False):,} faults and {count(outcomes, True):,} inputs"
    return f"Seed {seed}: {tried} in {seconds / 60:.0f} min ({machine}); {broken} broken promises."


def main(attacks: Sequence[Attack], arguments: Sequence[str] | None = None) -> int:
    names = [attack.name for attack in attacks]
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000, help="of all random numbers (default: of the clock)")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"this attack alone; may be given again: {', '.join(names)}")
    parser.add_argument("--trial", type=int, help="this trial of each attack alone")
    parser.add_argument("--quick", action="store_true", help="few trials, in a minute or two")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="trials at once (default: 2)")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for torture.json")
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}", flush=True)
    start = time.monotonic()
    outcomes = run([a for a in attacks if not chosen.only or a.name in chosen.only], chosen.seed, chosen.quick, chosen.jobs, chosen.trial)
    words = summary(outcomes, chosen.seed, time.monotonic() - start)
    print(f"\n{table(outcomes)}\n\n{words}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "torture.json").write_text(json.dumps(_json(outcomes, chosen, words), indent=1) + "\n", encoding="utf-8")
    return int(any(outcome.failures for outcome in outcomes))


def _json(outcomes: Sequence[Outcome], chosen: argparse.Namespace, words: str) -> dict[str, Any]:
    return {
        "seed": chosen.seed,
        "quick": chosen.quick,
        "summary": words,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "faults": count(outcomes, False),
        "inputs": count(outcomes, True),
        "attacks": [
            {
                "name": outcome.attack.name,
                "what": outcome.attack.what,
                "kind": "inputs" if outcome.attack.inputs else "faults",
                "tried": outcome.tried,
                "seconds": round(outcome.seconds, 1),
                "skipped": outcome.skipped,
                "failures": outcome.failures,
            }
            for outcome in outcomes
        ],
    }
