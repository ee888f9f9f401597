"""Growing and the refiner alone, without a worker or a network: how right they are on many cases, and on large ones, in seconds each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from methods import Pair
from scores import painted_dice

from sparseseg.network.device import Compute
from sparseseg.prior import compiled
from sparseseg.prior.grown import Grown
from sparseseg.prior.refiner import Refined
from sparseseg.prior.standing import precision

NAMES = ("grown", "refined")
GROW = "Grow from seeds"
Row = dict[str, Any]


def voices_of(pair: Pair, compute: Compute) -> Row:
    """Mean Dice of growing and of the refined result, from nothing, and the seconds that each took. All segments are refined: which the engine
    would leave alone is not asked."""
    compiled.warm_up()
    image, spacing = pair.case.image, pair.case.geometry.spacing_kji_mm
    labelled = pair.annotation > 0
    labels = np.where(labelled, pair.annotation - 1, 0).astype(np.uint8)
    start = time.perf_counter()
    grown = Grown.start(image, labels, labelled, spacing)
    between = time.perf_counter()
    refined = Refined.start(grown.label, grown.confidence, image, labels, labelled, spacing, compute.device, compute.dtype)
    seconds = (between - start, time.perf_counter() - between)
    return {
        "case": pair.case.name,
        "annotation": pair.protocol,
        "voxels": int(image.size),
        "painted": sorted(int(v) - 1 for v in np.unique(pair.annotation) if v > 1),
        "grown": mean_painted(grown.label, pair),
        "refined": mean_painted(refined.label, pair),
        "precision": round(precision(labelled, grown.confidence), 3),
        "grown s": round(seconds[0], 2),
        "refined s": round(seconds[1], 2),
    }


def mean_painted(label: np.ndarray, pair: Pair) -> float | None:
    """Mean Dice of the segments that the annotation has, on the voxels that it leaves unlabelled."""
    found = painted_dice(label, pair.case.truth, pair.seen)
    return round(float(np.mean([*found.values()])), 4) if found else None


def with_mean(rows: Sequence[Row]) -> list[Row]:
    """The rows as a table has them, and the mean of each case, of each annotation and of all."""
    columns = [name for name in (*NAMES, GROW, "precision") if any(name in row for row in rows)]
    shown = [{name: row.get(name) for name in ("case", "annotation", *columns, "grown s", "refined s")} for row in rows]
    groups = [("case", case) for case in dict.fromkeys(row["case"] for row in rows)]
    groups += [("annotation", protocol) for protocol in dict.fromkeys(row["annotation"] for row in rows)]
    for key, value in [*groups, ("", "")]:
        means = {name: _mean([row.get(name) for row in rows if not key or row[key] == value]) for name in columns}
        of = {"case": value if key == "case" else "**all**", "annotation": value if key == "annotation" else "**mean**"}
        shown.append({**of, **means, "grown s": None, "refined s": None})
    return shown


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 4) if known else None
