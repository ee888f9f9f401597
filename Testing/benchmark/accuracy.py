"""Accuracy side by side: this project, its prior, Grow from seeds, Fill between slices, random walker, nnU-Net; same strokes, same machine, one run.

Writes OUT/accuracy.json, accuracy.md and pictures. --corrections, --clinician, --next-slice, --transfer, --voices, --beginnings, --hints, --check,
--speed and --gpu are runs of their own, with files of their own.
See README.md here and docs/accuracy.md. Numbers are read by people, never by pass/fail tests.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import methods
import plots
import simulate
import tables
from common import markdown
from machine import limit_threads, machine
from methods import DEFAULT_METHODS, IMPRECISE, METHODS, PROTOCOLS, Options, Pair
from peers import HIDDEN
from product import default_budget
from scores import mean_of

from cases import SHARED, Case, load_case

TABLES = (
    ("Dice", "dice", 3),
    ("Surface Dice at 1 voxel", "surface_dice", 3),
    ("95 % Hausdorff distance, mm", "hd95_mm", 1),
    ("Seconds", "seconds", 1),
    ("Peak memory of the process, GB", "peak_gb", 2),
)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    if given.threads:
        limit_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    options = Options(given.device, given.budget or default_budget(given.device), given.nnunet_budget, given.seed, given.quick)
    about = machine(given.device)
    print(markdown([about]), flush=True)
    head = {"machine": about, "options": asdict(options) | {"threads": given.threads}}
    for part in PARTS:
        if getattr(given, part):
            PARTS[part](given, options, head)
            return 0
    compare(given, options, head)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=Path, nargs="+", default=[SHARED], metavar="FOLDER", help="cases, or folders of cases (%(default)s)")
    parser.add_argument(
        "--protocols", nargs="+", default=[*PROTOCOLS], metavar="NAME", help="annotations/NAME.nii.gz, or even-N: N slices from truth"
    )
    parser.add_argument("--methods", nargs="+", default=[*DEFAULT_METHODS], choices=[*METHODS, *HIDDEN], metavar="NAME", help=", ".join(METHODS))
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of each run of ours: 180, or 60 with a GPU")
    parser.add_argument("--nnunet-budget", type=float, default=600, metavar="SECONDS", help="that nnU-Net trains (%(default)s)")
    parser.add_argument("--correction-budget", type=float, metavar="SECONDS", help="after each stroke or slice; a sixth of the budget")
    parser.add_argument("--clinician-limit", type=float, default=300, metavar="SECONDS", help="after which the clinician gives up (%(default)s)")
    parser.add_argument("--seconds", type=float, nargs="+", metavar="S", help="with --beginnings: how long the network learns (15 45)")
    parser.add_argument("--out", type=Path, default=Path("bench-output"), metavar="FOLDER")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, metavar="N", help="for every method; all cores where not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="keep the rows that OUT/accuracy.json has")
    parser.add_argument("--beside-grow", action="store_true", help="with --voices: Grow from seeds, too; minutes a large case")
    parser.add_argument("--quick", action="store_true", help="a tiny phantom, a few steps: shows that it runs, measures nothing")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--corrections", action="store_true", help="five strokes on the worst slices, against growing")
    part.add_argument("--clinician", action="store_true", help="one slice, then strokes: time until the Dice is 0.80, 0.85, 0.90, against growing")
    part.add_argument("--next-slice", action="store_true", help="suggested slices against evenly spaced ones")
    part.add_argument("--transfer", action="store_true", help="the second patient, from the first one's model")
    part.add_argument("--voices", action="store_true", help="growing alone and refined, without a worker: quick on many and on large cases")
    part.add_argument("--beginnings", action="store_true", help="the network from nothing and with its start, after equal seconds")
    part.add_argument("--hints", action="store_true", help="regions of interest and one slice against three slices, and points alone")
    part.add_argument("--check", action="store_true", help="simulated mistakes in the annotation: how many are found")
    part.add_argument("--speed", action="store_true", help="answers to corrections, stopping and memory at 7 and 79 M voxels (speed.py)")
    part.add_argument("--gpu", action="store_true", help="times, memory and use of a GPU on a large phantom")
    return parser.parse_args(arguments)


def pairs_of(given: argparse.Namespace, quick: int = 2) -> list[Pair]:
    """The pairs that were asked for; `quick` tiny ones with --quick."""
    return list(pairs_in_turn(given, quick))


def pairs_in_turn(given: argparse.Namespace, quick: int = 2) -> Iterator[Pair]:
    """The same, one case in memory at a time. Ends the program where there is none."""
    if given.quick:
        yield from methods.phantom_pairs()[:quick]
        return
    found = False
    for folder in methods.case_folders(given.cases):
        case = load_case(folder)
        for protocol in given.protocols:
            if (pair := methods.load_pair(folder, protocol, case)) is not None:
                found = True
                yield pair
    if not found:
        raise SystemExit(f"None of the cases has an annotation {' or '.join(given.protocols)}.")


def cases_in_turn(given: argparse.Namespace) -> Iterator[Case]:
    """The cases without annotation, one in memory at a time; a tiny one with --quick."""
    if given.quick:
        yield methods.phantom_pairs()[0].case
    else:
        yield from map(load_case, methods.case_folders(given.cases))


# -- methods side by side ----------------------------------------------------------------------------------------------


def compare(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    """Every method on every pair, each pair's methods one after the other; the files are up to date after every pair."""
    file, pairs = given.out / "accuracy.json", pairs_of(given)
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if given.resume and file.exists() else []
    done = {(r["case"], r["protocol"], r["method"]) for r in rows if r["status"] in ("ok", "not applicable")}
    rows = [r for r in rows if (r["case"], r["protocol"], r["method"]) in done]
    for n, pair in enumerate(pairs, 1):
        for method in given.methods:
            if (pair.case.name, pair.protocol, method) not in done:
                rows.append(methods.run(method, pair, options))
                print(f"[{n}/{len(pairs)}] {said(rows[-1])}", flush=True)
        write(file, head | {"rows": rows})
        (given.out / "accuracy.md").write_text(report(rows, head), encoding="utf-8")
    print(f"\n{report(rows, head)}\n{file}")
    draw(lambda: plots.against_time(rows, given.out / "dice-against-time.png"))
    draw(lambda: plots.against_slices(rows, given.out / "dice-against-slices.png"))


def said(row: dict[str, Any]) -> str:
    name = f"{row['case']}, {row['protocol']}: {row['method']}"
    if row["status"] != "ok":
        return f"{name}: {row['status']}, {row.get('reason', '')}"
    peak = f", {row['peak_gb']:.2f} GB" if row["peak_gb"] else ""
    return f"{name}: Dice {tables.shown(row['dice']['mean'], 3)}, {row['seconds']:.1f} s{peak}"


def report(rows: list[dict[str, Any]], head: dict[str, Any]) -> str:
    parts = [markdown([head["machine"]])]
    for title, metric, digits in TABLES:
        table = tables.dice_table(rows) if metric == "dice" else tables.metric_table(rows, metric, digits)
        parts.append(f"## {title}\n\n{table}")
    if voices := voice_rows(rows):
        parts.append(f"## The voices, Dice of painted segments\n\n{tables.plain_table(voices)}")
    if previews := preview_rows(rows):
        parts.append(f"## First preview of sparseseg\n\n{tables.plain_table(previews)}")
    if why := tables.reasons(rows):
        parts.append(f"## Not there\n\n{why}")
    return "\n\n".join(parts) + "\n"


def voice_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each voice of ours reaches alone and together, beside growing; their means last."""
    found = []
    for (case, protocol), by in tables.pairs_of(rows):
        ours, grow = by.get(tables.OURS), by.get(tables.REFERENCE)
        if ours is not None and ours["status"] == "ok" and ours.get("voices"):
            beside = grow.get("painted") if grow else None
            found.append({"case": case, "annotation": protocol, **ours["voices"], "network's share": ours["share"], "Grow from seeds": beside})
    if found:
        numbers = [name for name in max(found, key=len) if name not in ("case", "annotation")]  # a network that learned too little is left out
        found.append({"case": "**mean**", "annotation": "", **{name: mean_of([row.get(name) for row in found]) for name in numbers}})
    return found


def preview_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours beside growing: when the first preview came and how good it was."""
    found = []
    for (case, protocol), by in tables.pairs_of(rows):
        ours, grow = by.get(tables.OURS), by.get(tables.REFERENCE)
        if ours is not None and ours["status"] == "ok":
            row = {"case": case, "annotation": protocol, "first preview s": ours["first_preview_s"], "its Dice": ours["first_preview_dice"]}
            found.append(row | {"grow s": tables.value(grow, "seconds"), "grow's Dice": tables.value(grow, "dice")})
    return found


# -- parts of their own ------------------------------------------------------------------------------------------------


def corrections(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    rows = each_pair(given, lambda pair: simulate.corrections(pair, options, correction_s(given, options)))
    finish(given, "corrections", head, rows, {"Gain": simulate.gains(rows), "Dice over strokes": rows})
    names = ("result", "grow, same strokes", "grow, own strokes")
    draw(lambda: curves(rows, "stroke", {n: n for n in names}, given.out / "corrections.png"))


def clinician(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    from clinician import Hand, curves, median_text, ratios, simulated
    from clinician import said as summary
    from clinician import tables as summed

    hand, rows = Hand.quick() if given.quick else Hand(limit_s=given.clinician_limit), []
    for case in cases_in_turn(given):
        rows.append(simulated(case, options, hand))
        print(summary(rows[-1]), flush=True)
        write(given.out / "clinician.json", head | {"rows": rows})
    finish(given, "clinician", head | {"times as fast": median_text(ratios(rows))}, rows, summed(rows))
    draw(lambda: plots.lines([row["case"] for row in rows], curves(rows), "seconds", given.out / "clinician.png"))


def next_slice(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    rows = each_pair(given, lambda pair: simulate.next_slice(pair, options, correction_s(given, options)))
    finish(given, "next-slice", head, rows, {"Dice over added slices": rows})
    draw(lambda: curves(rows, "slices added", {n: f"Dice, {n}" for n in ("suggested", "even")}, given.out / "next-slice.png"))


def transfer(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    """The first case to another crop and orientation of itself, and to each other case that shares a segment's name."""
    source, *rest = pairs_of(given, quick=1)
    others = [p for p in rest if p.case.name != source.case.name and p.protocol == source.protocol]
    known = set(source.case.classes.names)
    variants = simulate.second_patients(source)
    targets = variants[-1 if given.quick else 0 :] + [(p.name, p) for p in others if known & set(p.case.classes.names)]
    rows = simulate.transfer(source, targets, options)
    finish(
        given,
        "transfer",
        head,
        rows,
        {"The second patient: Dice, and seconds to that of training from nothing": [{k: v for k, v in r.items() if k != "curves"} for r in rows]},
    )
    titles = [r["from -> to"] for r in rows]
    draw(lambda: plots.lines(titles, [{f"from {n}": c for n, c in r["curves"].items()} for r in rows], "seconds", given.out / "transfer.png"))


def gpu(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    import torch
    from gpu import GOALS
    from gpu import gpu as measure

    if given.device == "cpu" or not torch.cuda.is_available():
        print("No GPU here: the same on a tiny volume and the CPU, which shows only that it runs.", flush=True)
        options = replace(options, quick=True, device="cpu")
    parts = measure(options)
    finish(given, "gpu", head, [row for rows in parts.values() for row in rows], parts)
    print("Goals on a GPU: " + ", ".join(f"{name} at most {most:g}" for name, most in GOALS.items()))


def voices(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    from voices import GROW, NAMES, voices_of, with_mean

    from sparseseg.network import device

    compute, rows = device.choose(given.device), []
    for pair in pairs_in_turn(given):
        rows.append(voices_of(pair, compute))
        if given.beside_grow:
            rows[-1] |= beside_grow(pair, options)
        print(", ".join(f"{name} {tables.shown(rows[-1][name], 4)}" for name in ("case", "annotation", *NAMES, GROW) if name in rows[-1]), flush=True)
        write(given.out / "voices.json", head | {"rows": rows})
    finish(given, "voices", head, rows, {"Dice of painted segments, where nobody annotated": with_mean(rows)})


def beside_grow(pair: Pair, options: Options) -> dict[str, Any]:
    from voices import GROW, mean_painted

    label = simulate.grown(pair, options)
    return {GROW: None if label is None else mean_painted(label, pair)}


def beginnings(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    from beginnings import SECONDS, beginnings_of, means

    from sparseseg.network import device

    compute, rows = device.choose(given.device), []
    seconds = given.seconds or ([0.5] if given.quick else SECONDS)
    for pair in pairs_in_turn(given):
        rows += beginnings_of(pair, compute, seconds)
        print(markdown(rows[-len(seconds) :]), flush=True)
        write(given.out / "beginnings.json", head | {"rows": rows})
    finish(given, "beginnings", head, rows, {"Dice of painted segments, where nobody annotated": means(rows), "each pair": rows})


def hints(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    from hinted import PROTOCOL, by_case, hints_of

    from sparseseg.network import device

    compute, rows = device.choose(given.device), []
    given.protocols = [PROTOCOL]
    for pair in pairs_in_turn(given, quick=1):
        rows += (found := hints_of(pair, compute, given.seed))
        for row in found:
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        write(given.out / "hints.json", head | {"rows": rows})
    finish(given, "hints", head, rows, {f"Dice, {voice}": by_case(rows, voice) for voice in ("grown", "refined")})


def check(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    from mistakes import runs_of, scored, shipped, to_json
    from mistakes import tables as summed

    runs = []
    given.protocols = [p for p in given.protocols if p not in IMPRECISE]  # mistakes come with hands of their own
    for pair in pairs_in_turn(given):
        runs += runs_of(pair, 1 if given.quick else None)
        print(f"{pair.name}: {len(runs)} runs", flush=True)
        write(given.out / "check-evidence.json", head | {"runs": [to_json(run) for run in runs], "shipped": shipped(runs)})
    rows = scored(runs)
    finish(given, "check", head, rows, summed(rows))


def speed(given: argparse.Namespace, options: Options, head: dict[str, Any]) -> None:
    import speed as measured

    file = given.out / "speed.json"
    measured.main(["--device", given.device, "--json", str(file), *(["--quick"] if given.quick else [])])
    print(f"\n{file}")


def each_pair(given: argparse.Namespace, part: Callable[[Pair], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows, pairs = [], pairs_of(given, quick=1)
    for n, pair in enumerate(pairs, 1):
        rows += part(pair)
        print(f"[{n}/{len(pairs)}] {pair.name}: done", flush=True)
    return rows


def correction_s(given: argparse.Namespace, options: Options) -> float:
    return given.correction_budget or max(1.0, options.budget_s / 6)


def curves(rows: list[dict[str, Any]], x: str, names: dict[str, str], file: Path) -> None:
    keys = list(dict.fromkeys((r["case"], r["annotation"]) for r in rows))
    found = [[r for r in rows if (r["case"], r["annotation"]) == key] for key in keys]
    named = [{name: [(r[x], r[column]) for r in mine if r[column] is not None] for name, column in names.items()} for mine in found]
    plots.lines([", ".join(k) for k in keys], [{n: p for n, p in curve.items() if p} for curve in named], x, file)


def finish(given: argparse.Namespace, name: str, head: dict[str, Any], rows: list[Any], parts: dict[str, list[dict[str, Any]]]) -> None:
    """Write OUT/NAME.json and OUT/NAME.md, and print the tables."""
    text = "\n\n".join([markdown([head["machine"]]), *(f"## {title}\n\n{tables.plain_table(found)}" for title, found in parts.items())])
    (given.out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    write(given.out / f"{name}.json", head | {"rows": rows})
    print(f"\n{text}\n\n{given.out / name}.json", flush=True)


def write(file: Path, data: dict[str, Any]) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(data, indent=1, default=float) + "\n", encoding="utf-8")
    os.replace(new, file)


def draw(picture: Callable[[], Any]) -> None:
    try:
        picture()
    except ImportError as error:
        print(f"no picture: matplotlib is not installed ({error})")


PARTS = {
    "corrections": corrections,
    "clinician": clinician,
    "next_slice": next_slice,
    "transfer": transfer,
    "voices": voices,
    "beginnings": beginnings,
    "hints": hints,
    "check": check,
    "speed": speed,
    "gpu": gpu,
}

if __name__ == "__main__":
    sys.exit(main())
