"""Check my annotation: simulated mistakes, how many are found, and how many of the entries are right.

Every case is scored with weights and a threshold that were fitted to the other cases. Mistakes are whole structures or strokes, on exact annotation
and on that of imprecise hands; runs without a mistake show how often the check speaks up for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from methods import Pair

import hands
from sparseseg.annotation.slices import plane
from sparseseg.contract.place import AT_A_TIME
from sparseseg.prior import compiled
from sparseseg.prior.grown import Grown
from sparseseg.quality import check
from sparseseg.quality.check import Doubt, Piece

KINDS = ("forgotten", "mislabelled", "stroke")
NONE = "none"
SEEDS, SEEDS_IF_LARGE, LARGE = 3, 1, 1_000_000  # mistakes of a kind, and in volumes of more voxels
PRECISION = 0.8  # that the threshold is chosen for, entries without a mistake counted against it
ON_SLICES = ("cover", "gray", "crossing", "painted_right", "thickness", "size", "missing", "between", "on_both", "painted_near")
ON_STROKES = ("cover", "gray", "crossing", "painted_right", "reliability", "confidence")
_RIDGE, _STEPS = 1.0, 40
_VOXELS_OFF, _BRUSH, _OVER = 1.0, 1, 1
Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A piece (without its voxels). right: it and the mistake share half of the smaller one; part: it is a small part of the mistake, no example."""

    piece: Piece
    right: bool
    part: bool


@dataclass(frozen=True)
class Run:
    case: str
    protocol: str
    hands: str  # exact, imprecise
    kind: str
    found: tuple[Found, ...]


# -- simulating --------------------------------------------------------------------------------------------------------


def runs_of(pair: Pair, seeds: int | None = None) -> Iterator[Run]:
    """The pair without a mistake, and with one of each kind and seed, twice: exact and by imprecise hands."""
    compiled.warm_up()
    seeds = seeds or (SEEDS if pair.annotation.size <= LARGE else SEEDS_IF_LARGE)
    slices = hands.complete_slices(pair.annotation)
    if slices:
        imprecise = hands.contours_off(np.random.default_rng(1), pair.annotation, _VOXELS_OFF)
    else:
        imprecise = hands.brushed(pair.annotation, pair.case.truth, _BRUSH, _OVER)
    for name, annotation in (("exact", pair.annotation), ("imprecise", imprecise)):
        yield _run(pair, name, NONE, annotation, np.zeros(annotation.shape, bool))
        for kind in KINDS[:2] if slices else KINDS[2:]:
            for seed in range(seeds):
                made = _mistake(np.random.default_rng([seed, name != "exact"]), pair.annotation, annotation, kind)
                if made is not None and len(np.unique(made[0])) == len(np.unique(annotation)):  # a segment without a voxel is refused anyway
                    yield _run(pair, name, kind, *made)


def _mistake(rng: hands.Rng, exact: np.ndarray, annotation: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The annotation with a mistake, and where that is, (K, J, I) bool."""
    if kind == "stroke":
        made = hands.with_wrong_stroke(rng, exact, check.annotated(exact > 0), None if annotation is exact else annotation)
        return None if made is None else (made[0], made[2])
    made = hands.with_mistake(rng, annotation, kind)
    if made is None:
        return None
    where = np.zeros(annotation.shape, bool)
    where[plane(*made[1])] = made[2]
    return made[0], where


def _run(pair: Pair, name: str, kind: str, annotation: np.ndarray, where: np.ndarray) -> Run:
    labelled = annotation > 0
    labels = np.where(labelled, annotation - 1, 0).astype(np.uint8)
    image, spacing = pair.case.image, pair.case.geometry.spacing_kji_mm
    plan = Grown.start(image, labels, labelled, spacing).plan
    believed = lambda rest: Grown.start(image, labels, rest, spacing, plan=plan)  # noqa: E731 - as the session's voice does
    found = check.pieces(image, labels, labelled, len(pair.case.classes) + 1, believed)
    return Run(pair.case.name, pair.protocol, name, kind, tuple(_judged(piece, where) for piece in found))


def _judged(piece: Piece, where: np.ndarray) -> Found:
    shared, mistaken = int(where[piece.voxels].sum()), int(where[plane(piece.axis, piece.index)].sum())
    right = shared >= 0.5 * max(1, min(len(piece.voxels[0]), mistaken))
    part = right and piece.evidence.cover < 0.5 and shared < 0.3 * int(where.sum())
    return Found(replace(piece, voxels=()), right, part)


# -- fitting -----------------------------------------------------------------------------------------------------------


def fit(runs: Iterable[Run]) -> tuple[check.Weights, check.Weights]:
    """Weights for pieces of complete slices and of strokes: logistic regression with a small ridge on standardised numbers."""
    found = [f for run in runs for f in run.found if not f.part]
    return _fitted([f for f in found if f.piece.complete], ON_SLICES), _fitted([f for f in found if not f.piece.complete], ON_STROKES)


def _fitted(found: Sequence[Found], names: Sequence[str]) -> check.Weights:
    if not any(f.right for f in found):
        return {"constant": -9.0}
    values = np.array([[getattr(f.piece.evidence, name) for name in names] for f in found])
    right = np.array([f.right for f in found], float)
    mean, deviation = values.mean(0), values.std(0) + 1e-9
    table = np.column_stack([np.ones(len(values)), (values - mean) / deviation])
    ridge = _RIDGE * np.diag([0.0, *np.ones(len(names))])
    weights = np.zeros(table.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(table @ weights, -30, 30)))
        slope = table.T @ (chance - right) + ridge @ weights
        curve = (table * (chance * (1 - chance))[:, None]).T @ table + ridge + 1e-6 * np.eye(len(weights))
        weights -= np.linalg.solve(curve, slope)
    plain = weights[1:] / deviation
    return {"constant": float(weights[0] - plain @ mean)} | dict(zip(names, plain.tolist(), strict=True))


def entries(run: Run, weights: tuple[check.Weights, check.Weights], least_sure: float) -> list[tuple[float, bool]]:
    """What the check says of a run: sureness of each entry, and whether it is right."""
    right = {id(f.piece): f.right for f in run.found}
    doubts = [Doubt(f.piece, check.sureness(f.piece, *weights)) for f in run.found]
    return [(doubt.sureness, right[id(doubt.piece)]) for doubt in check.listed(doubts, least_sure)[:AT_A_TIME]]


def threshold(listed: Sequence[Sequence[tuple[float, bool]]]) -> float:
    """The lowest that reaches the wanted precision."""
    for least in np.arange(0.1, 0.98, 0.02):
        kept = [right for one in listed for sure, right in one if sure >= least]
        if np.mean(kept or [1.0]) >= PRECISION:
            return float(least)
    return 0.98


# -- scoring -----------------------------------------------------------------------------------------------------------


def scored(runs: Sequence[Run]) -> list[Row]:
    """A row for each run: what is said of it with weights and threshold from the other cases."""
    rows, cases = [], list(dict.fromkeys(run.case for run in runs))
    left_out = {case: fit(run for run in runs if run.case != case) for case in cases}
    said = [entries(run, left_out[run.case], 0.1) for run in runs]
    for case in cases:
        least = threshold([one for run, one in zip(runs, said, strict=True) if run.case != case])
        for run, one in zip(runs, said, strict=True):
            if run.case == case:
                kept = [right for sure, right in one if sure >= least]
                rows.append(
                    {"case": case, "annotation": run.protocol, "hands": run.hands, "mistake": run.kind, "right": sum(kept), "entries": len(kept)}
                )
    return rows


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups = {"Mistakes": "mistake", "Annotation": "annotation", "Hands": "hands", "Cases": "case"}
    return {
        title: [*(_summed(name, [r for r in rows if r[key] == name]) for name in dict.fromkeys(r[key] for r in rows)), _summed("**all**", rows)]
        for title, key in groups.items()
    }


def _summed(name: str, rows: Sequence[Row]) -> Row:
    wrong = [r for r in rows if r["mistake"] != NONE]
    clean = [r for r in rows if r["mistake"] == NONE]
    said = sum(r["entries"] for r in wrong)
    return {
        "": name,
        "mistakes": len(wrong),
        "found": round(sum(r["right"] > 0 for r in wrong) / len(wrong), 2) if wrong else None,
        "entries": said,
        "precision": round(sum(r["right"] for r in wrong) / said, 2) if said else None,
        "runs without": len(clean),
        "entries there": sum(r["entries"] for r in clean),
    }


def shipped(runs: Sequence[Run]) -> Row:
    """What the engine should hold: fitted to all cases."""
    weights = fit(runs)
    return {"ON_SLICES": weights[0], "ON_STROKES": weights[1], "LEAST_SURE": threshold([entries(run, weights, 0.1) for run in runs])}


def to_json(run: Run) -> Row:
    found = [{"evidence": asdict(f.piece.evidence), "complete": f.piece.complete, "right": f.right, "part": f.part} for f in run.found]
    return {field.name: getattr(run, field.name) for field in fields(run)} | {"found": found}
