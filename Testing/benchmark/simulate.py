"""What a clinician does after the first result, simulated from the truth: corrections, the next slice, the second patient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
from methods import Options, Pair, run_peer
from product import Product, Trained
from scores import mean_dice
from tables import Row

from cases import Case, annotate_slices, spread_slices
from sparseseg.annotation.slices import annotated_planes
from sparseseg.contract.box import box_of
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry

INTERACTIONS, SLICES_ADDED, QUICK = 5, 3, 1  # how many; with --quick
SAME_DICE = 0.002  # so close to what training from nothing reaches counts as there
CROP = 0.08  # of each side of the second patient's volume
Slice = tuple[int, int]  # axis, index
Curve = list[tuple[float, float]]  # seconds, mean Dice


@contextmanager
def opened(pair: Pair, options: Options) -> Iterator[Product]:
    """A worker with the pair's job open, in a folder that goes with it."""
    with (
        TemporaryDirectory(prefix="sparseseg-bench-", ignore_cleanup_errors=True) as folder,
        Product(Path(folder) / "job", pair.case, pair.annotation, options.settings(), options.device) as product,
    ):
        yield product


# -- corrections -------------------------------------------------------------------------------------------------------


def corrections(pair: Pair, options: Options, correction_s: float) -> list[Row]:
    """One row an interaction, the first result being 0: mean Dice of ours (the preview that answers the stroke, and after training on), of growing
    with the same strokes, and of growing with strokes on its own worst slices. All on voxels that nobody annotated up to the end."""
    truth, axes = pair.case.truth, annotated_axes(pair.annotation)
    ours = own = pair.annotation
    with opened(pair, options) as product:
        result = product.train().dense
        same = alone = grown(pair, options)
        maps, facts = [(result, result, same, alone)], [dict.fromkeys(("slice", "voxels", "right in preview", "preview s"))]
        for _ in range(QUICK if options.quick else INTERACTIONS):
            stroke, where = worst_stroke(result, truth, ours, axes)
            before, ours = ours, with_stroke(ours, truth, stroke)
            own = with_stroke(own, truth, worst_stroke(alone, truth, own, axes)[0]) if alone is not None else own
            answer = product.update(ours, box_of(ours != before))  # as hosts do
            result = product.train(time_budget_s=correction_s).dense
            same, alone = (grown(pair.with_annotation(strokes), options) for strokes in (ours, own))
            maps.append((answer.refined.dense, result, same, alone))
            facts.append(stroke_facts(stroke, where, answer.refined.dense, truth) | {"preview s": answer.refined.seconds})
    seen = np.maximum(ours, own)  # only whether it is 0 counts
    names = ("preview", "result", "grow, same strokes", "grow, own strokes")
    columns = [dict(zip(names, [None if m is None else mean_dice(m, truth, seen) for m in four], strict=True)) for four in maps]
    about = {"case": pair.case.name, "annotation": pair.protocol}
    return [about | {"stroke": n} | dice | fact for n, (dice, fact) in enumerate(zip(columns, facts, strict=True))]


def gains(rows: Sequence[Row]) -> list[Row]:
    """For each pair: what a stroke gained on average, whether every corrected voxel was right, the slowest preview."""
    summary = []
    for key in dict.fromkeys((r["case"], r["annotation"]) for r in rows):
        mine = [r for r in rows if (r["case"], r["annotation"]) == key]
        first, last, strokes = mine[0], mine[-1], mine[1:]
        gain = {f"gain a stroke, {n}": per_stroke(first[n], last[n], len(strokes)) for n in ("result", "grow, same strokes", "grow, own strokes")}
        right = min((r["right in preview"] for r in strokes), default=None)
        slowest = max((r["preview s"] for r in strokes), default=None)
        summary.append({"case": key[0], "annotation": key[1], **gain, "corrected voxels right": right, "slowest preview s": slowest})
    return summary


def per_stroke(first: float | None, last: float | None, strokes: int) -> float | None:
    return None if first is None or last is None or not strokes else (last - first) / strokes


def grown(pair: Pair, options: Options) -> np.ndarray | None:
    with TemporaryDirectory(prefix="sparseseg-bench-", ignore_cleanup_errors=True) as folder:
        return run_peer("grow", pair, options, Path(folder))[1]


def annotated_axes(annotation: np.ndarray) -> list[int]:
    """The orientations of the slices that somebody painted on."""
    return sorted({axis for axis, _ in annotated_planes(annotation > 0, factor=3.0)}) or [0]


def with_stroke(annotation: np.ndarray, truth: np.ndarray, stroke: np.ndarray) -> np.ndarray:
    return np.where(stroke, truth + 1, annotation).astype(np.uint8)


def stroke_facts(stroke: np.ndarray, where: Slice, shown: np.ndarray, truth: np.ndarray) -> Row:
    right = float((shown[stroke] == truth[stroke]).mean()) if stroke.any() else None
    return {"slice": f"{'kji'[where[0]]} {where[1]}", "voxels": int(stroke.sum()), "right in preview": right}


def worst_stroke(result: np.ndarray, truth: np.ndarray, annotation: np.ndarray, axes: Sequence[int]) -> tuple[np.ndarray, Slice]:
    """A thin line through the largest wrong spot (of one true label) of the slice that holds the most wrong voxels for its size.

    Bool (K, J, I), all in one slice and of one true label; and that slice. Nothing where all is right.
    """
    wrong, stroke = (result != truth) & (annotation == 0), np.zeros(truth.shape, bool)
    worst = (0.0, 0, 0)
    for axis in axes:
        counts = wrong.sum(axis=tuple(a for a in range(3) if a != axis)) / (wrong.size / wrong.shape[axis]) ** 0.5
        worst = max(worst, (float(counts.max()), axis, int(counts.argmax())))
    _, axis, index = worst
    flat_wrong, flat_truth = (np.take(volume, index, axis) for volume in (wrong, truth))
    spots = [largest_spot(flat_wrong & (flat_truth == c)) for c in np.unique(flat_truth[flat_wrong])]
    if spots:
        box = tuple(index if a == axis else slice(None) for a in range(3))
        stroke[box] = medial_line(max(spots, key=np.count_nonzero))
    return stroke, (axis, index)


def largest_spot(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected component of a flat mask that is not empty."""
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True))
    return sitk.GetArrayFromImage(parts) == 1


def medial_line(spot: np.ndarray) -> np.ndarray:
    """The longest path through the skeleton of a flat mask, one pixel wide: what one draws along its middle."""
    skeleton = sitk.GetArrayFromImage(sitk.BinaryThinning(sitk.GetImageFromArray(np.pad(spot, 1).astype(np.uint8))))[1:-1, 1:-1] > 0
    skeleton &= spot
    if not skeleton.any():
        skeleton = spot
    points = {(int(y), int(x)) for y, x in np.argwhere(skeleton)}
    end = farthest(points, min(points))[-1]
    line = np.zeros(spot.shape, bool)
    line[tuple(np.array(farthest(points, end)).T)] = True
    return line


def farthest(points: set[tuple[int, int]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """The path over 8-neighbours from start to the point that takes the most steps."""
    came: dict[tuple[int, int], tuple[int, int] | None] = {start: None}
    queue = [start]
    for y, x in queue:
        for step in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            there = (y + step[0], x + step[1])
            if there in points and there not in came:
                came[there] = (y, x)
                queue.append(there)
    path, at = [], queue[-1]
    while at is not None:
        path.append(at)
        at = came[at]
    return path[::-1]


# -- the next slice ----------------------------------------------------------------------------------------------------


def next_slice(pair: Pair, options: Options, correction_s: float) -> list[Row]:
    """SLICES_ADDED further slices, one at a time, annotated completely from the truth: where ours suggests, or evenly spaced axial ones."""
    arms = {name: with_slices(pair, options, correction_s, name == "suggested") for name in ("suggested", "even")}
    seen = np.maximum(*(annotation for _, annotation, _ in arms.values()))
    rows = []
    for n in range(len(arms["even"][0])):
        row: Row = {"case": pair.case.name, "annotation": pair.protocol, "slices added": n}
        for name, (maps, _, added) in arms.items():
            row |= {
                f"Dice, {name}": mean_dice(maps[n], pair.case.truth, seen),
                f"slice, {name}": "" if n == 0 else "kji"[added[n - 1][0]] + f" {added[n - 1][1]}",
            }
        rows.append(row)
    return rows


def with_slices(pair: Pair, options: Options, correction_s: float, suggested: bool) -> tuple[list[np.ndarray], np.ndarray, list[Slice]]:
    """The results, from the first to that with all slices; the last annotation; the slices in order."""
    annotation, truth = pair.annotation, pair.case.truth
    maps, added = [], []
    with opened(pair, options) as product:
        trained = product.train()
        maps.append(trained.dense)
        for _ in range(QUICK if options.quick else SLICES_ADDED):
            chosen = first_suggestion(trained, annotation) if suggested else widest_gap(truth, annotation)
            annotation = np.maximum(annotation, annotate_slices(truth, [chosen]))
            added.append(chosen)
            product.update(annotation)
            trained = product.train(time_budget_s=correction_s)
            maps.append(trained.dense)
    return maps, annotation, added


def first_suggestion(trained: Trained, annotation: np.ndarray) -> Slice:
    """The first suggested slice that is not complete; where nothing is suggested, the middle."""
    for axis, index in trained.result.next_slices:
        if not (np.take(annotation, index, axis) > 0).all():
            return int(axis), int(index)
    return 0, annotation.shape[0] // 2


def widest_gap(truth: np.ndarray, annotation: np.ndarray) -> Slice:
    """The axial slice of the structures' extent that is farthest from the complete ones and the ends; so slices become evenly spaced."""
    extent = np.flatnonzero(truth.any(axis=(1, 2)))
    complete = np.flatnonzero((annotation > 0).all(axis=(1, 2)))
    taken = np.concatenate([complete, [extent[0] - 1, extent[-1] + 1]])
    inside = np.arange(extent[0], extent[-1] + 1)
    return 0, int(inside[np.abs(inside[:, None] - taken[None]).min(1).argmax()])


# -- the second patient ------------------------------------------------------------------------------------------------


def transfer(source: Pair, targets: Sequence[tuple[str, Pair]], options: Options) -> list[Row]:
    """Train on the source; then each target from nothing, from nothing in half the time, and from the source's model in half the time."""
    rows = []
    with TemporaryDirectory(prefix="sparseseg-bench-", ignore_cleanup_errors=True) as folder:
        with Product(Path(folder) / "source", source.case, source.annotation, options.settings(), options.device) as product:
            model = product.train().result.model
        for name, given in targets:
            target, curves = matched(given, source.case.classes), []
            for start, seconds in (("", options.budget_s), ("", options.budget_s / 2), (model, options.budget_s / 2)):
                with opened(target, options) as product:
                    curves.append(curve(product.train(start, time_budget_s=seconds), target))
            rows.append(transfer_row(f"{source.name} -> {name}", *curves))
    return rows


def transfer_row(name: str, nothing: Curve, half: Curve, model: Curve) -> Row:
    """Each curve ends with its result; the times are those of the network's previews and results, as the prior's comes before any training."""
    level = nothing[-1][1] - SAME_DICE
    row = {"from -> to": name, "first preview": nothing[0][1], "from nothing": nothing[-1][1], "from nothing, half the time": half[-1][1]}
    row |= {"from the model, half the time": model[-1][1], "as good": "yes" if model[-1][1] >= level else "no"}
    times = {"s from nothing": reached(nothing[1:], level), "s from the model": reached(model[1:], level)}
    return row | times | {"curves": {"nothing": nothing, "nothing, half the time": half, "model, half the time": model}}


def curve(trained: Trained, pair: Pair) -> Curve:
    """(seconds since train, mean Dice) of every preview, the prior's first, and the result."""
    points = [(s.seconds, pair.dice(s.dense)) for s in trained.shown] + [(trained.seconds, pair.dice(trained.dense))]
    return [(seconds, dice) for seconds, dice in points if dice is not None]


def reached(points: Curve, level: float) -> float | None:
    """When the Dice first came up to the level."""
    return next((seconds for seconds, dice in points if dice >= level), None)


def matched(pair: Pair, classes: ClassTable) -> Pair:
    """The pair with its label values changed so that segments with a name that `classes` knows have that value; the others take what is left."""
    names, wanted = pair.case.classes.names, classes.names
    fixed = {name: wanted.index(name) + 1 for name in names if name in wanted and wanted.index(name) < len(names)}
    free = iter(v for v in range(1, len(names) + 1) if v not in fixed.values())
    new = [fixed.get(name) or next(free) for name in names]  # of the old values 1, 2, ...
    table = np.array([0, *new], np.uint8)
    annotation = np.array([0, 1, *(v + 1 for v in new)], np.uint8)[pair.annotation]
    segments = [None] * len(names)
    for segment, value in zip(pair.case.classes.segments, new, strict=True):
        segments[value - 1] = segment
    return replace(pair, case=replace(pair.case, truth=table[pair.case.truth], classes=ClassTable(tuple(segments))), annotation=annotation)


def second_patients(pair: Pair, slices: int = 3) -> list[tuple[str, Pair]]:
    """The same anatomy as another volume: cropped, and stored head first and from the other side; annotated on slices of its own."""
    variants: list[tuple[str, Any]] = [("cropped", (CROP, ())), ("cropped and turned", (CROP, (0, 2)))]
    made = []
    for name, (crop, flipped) in variants:
        case = reoriented(pair.case, crop, flipped)
        annotation = annotate_slices(case.truth, spread_slices(case.truth, 0, slices))
        made.append((name, Pair(case, f"even-{slices}", annotation, pair.modality)))
    return made


def reoriented(case: Case, crop: float, flipped: Sequence[int]) -> Case:
    """The case without `crop` of each end of axes j and i, and one slice of k, its arrays reversed along `flipped`; the geometry says so."""
    ends = [1, *(int(crop * n) for n in case.truth.shape[1:])]
    box = tuple(slice(e, n - e) for e, n in zip(ends, case.truth.shape, strict=True))
    image, truth = (np.ascontiguousarray(np.flip(volume[box], flipped)) for volume in (case.image, case.truth))
    move = np.eye(4)  # from the new (i, j, k) to the old
    for axis, end in enumerate(ends):
        ijk = 2 - axis
        move[ijk, ijk], move[ijk, 3] = (-1, end + truth.shape[axis] - 1) if axis in flipped else (1, end)
    geometry = Geometry(truth.shape, tuple(map(tuple, case.geometry.matrix @ move)))
    return replace(case, image=image, truth=truth, geometry=geometry)
