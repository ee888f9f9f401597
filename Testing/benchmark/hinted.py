"""What hints are worth: regions of interest and one complete slice against three slices without, and points alone; growing and refined, no worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import SimpleITK as sitk
from methods import Pair
from scores import bounding_box, distance
from voices import mean_painted

from sparseseg.annotation.hinted import HintLabels
from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.box import whole
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, Roi, SegmentHints
from sparseseg.contract.settings import Settings
from sparseseg.network.device import Compute
from sparseseg.prior import compiled
from sparseseg.quality.constraints import Constraints
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.prior_voice import PriorVoice

ROI_MARGIN = 0.1  # of a segment's extent, on each side
VOLUME_MARGIN = 0.1  # of a segment's volume, less and more
OUTSIDE = 5  # points, anywhere in the background
PROTOCOL = "slices-3"
Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """One way to annotate a case: strokes, (K, J, I) uint8 as in Pair, and hints."""

    name: str
    strokes: np.ndarray
    segments: Sequence[SegmentHints]
    outside: tuple[Point, ...] = ()


def hints_of(pair: Pair, compute: Compute, seed: int) -> list[Row]:
    """One row for each way to annotate a case; pair has its three complete slices. Dice is the mean over the segments on the voxels that the three
    slices leave unlabelled, for all ways alike."""
    compiled.warm_up()
    return [row_of(pair, way, compute) for way in ways_of(pair, seed)]


def ways_of(pair: Pair, seed: int) -> list[Way]:
    """A segment that the slices do not show has a point inside."""
    geometry, middle, nothing = pair.case.geometry, middle_slice(pair.annotation), np.zeros_like(pair.annotation)
    masks = {value: pair.case.truth == value for value in range(1, len(pair.case.classes) + 1)}
    rois = [SegmentHints(roi=roi_of(mask, geometry)) for mask in masks.values()]
    points = [SegmentHints(inside=(deepest(mask, geometry),)) for mask in masks.values()]
    missing, missing_in_one = (
        [SegmentHints() if (strokes == value + 1).any() else hint for value, hint in zip(masks, points, strict=True)]
        for strokes in (pair.annotation, middle)
    )
    outside = outside_points(pair, seed)
    shapes = [shape_of(mask, geometry) for mask in masks.values()]
    return [
        Way("three slices", pair.annotation, missing),
        Way("three slices, ROI", pair.annotation, together(rois, missing)),
        Way("one slice", middle, missing_in_one),
        Way("one slice, ROI", middle, together(rois, missing_in_one)),
        Way("one slice, ROI, shape", middle, together(rois, missing_in_one, shapes)),
        Way("points", nothing, points, outside),
        Way("points, ROI", nothing, together(rois, points), outside),
        Way("points, ROI, shape", nothing, together(rois, points, shapes), outside),
    ]


def row_of(pair: Pair, way: Way, compute: Compute) -> Row:
    """As a session does it: growing, the refiner, and what hints rule out."""
    case, hints = pair.case, Hints(tuple(way.segments), way.outside)
    start = time.perf_counter()
    says_something = way.outside or any(segment != SegmentHints() for segment in way.segments)
    hinted = HintLabels(hints, case.geometry) if says_something else None
    annotation = build_annotation(way.strokes, case.classes, hints=hinted)
    voice = PriorVoice(case.image[None], case.geometry.spacing_kji_mm, Settings(), DeviceChoice(chosen=compute), lambda: None)
    grown = voice.grow(annotation).copy()
    voice.refine_all(annotation)
    refined = voice.stands.label
    if hinted is not None and voice.grown is not None:
        constraints = Constraints(hints, hinted, case.classes, case.geometry)
        for labels, sure in ((grown, voice.grown.confidence.copy()), (refined, voice.stands.confidence)):
            constraints.hold_places(labels, annotation.labelled, whole(labels.shape), sure)
            constraints.hold_shapes(labels, sure, annotation.labelled)
    seconds = round(time.perf_counter() - start, 2)
    painted = int((way.strokes > 0).sum())
    dice = {name: mean_painted(labels, pair) for name, labels in (("grown", grown), ("refined", refined))}
    return {"case": case.name, "annotation": way.name, "painted voxels": painted, **dice, "s": seconds}


def middle_slice(annotation: np.ndarray) -> np.ndarray:
    """Of complete axial slices the middle one alone, (K, J, I) uint8."""
    planes = np.flatnonzero((annotation > 0).all(axis=(1, 2)))
    alone = np.zeros_like(annotation)
    alone[planes[len(planes) // 2]] = annotation[planes[len(planes) // 2]]
    return alone


def roi_of(mask: np.ndarray, geometry: Geometry) -> Roi:
    """The box of a segment's voxels and ROI_MARGIN more on each side, along the volume's axes."""
    box = bounding_box(mask)[::-1]
    spacing = np.array(geometry.spacing_ijk_mm)
    size = (1 + 2 * ROI_MARGIN) * np.array([s.stop - s.start for s in box]) * spacing
    middle = [(s.start + s.stop - 1) / 2 for s in box]
    axes = (geometry.matrix[:3, :3] / spacing).T
    return Roi(tuple((geometry.matrix @ [*middle, 1])[:3]), tuple(size), tuple(map(tuple, axes)))  # type: ignore[arg-type]


def deepest(mask: np.ndarray, geometry: Geometry) -> Point:
    """In the voxel that is farthest from all that is not the segment."""
    depth = distance(~np.pad(mask, 1), geometry.spacing_kji_mm)[1:-1, 1:-1, 1:-1]
    return point_at(np.unravel_index(int(depth.argmax()), mask.shape), geometry)


def shape_of(mask: np.ndarray, geometry: Geometry) -> SegmentHints:
    """One piece and no holes where that is true of a segment, and its volume, VOLUME_MARGIN less and more."""
    pieces = sitk.GetArrayViewFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)).max()
    filled = sitk.GetArrayViewFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(mask.astype(np.uint8)))).astype(bool)
    volume_ml = float(mask.sum() * np.prod(geometry.spacing_kji_mm)) / 1000
    margins = ((1 - VOLUME_MARGIN) * volume_ml, (1 + VOLUME_MARGIN) * volume_ml)
    return SegmentHints(one_piece=bool(pieces == 1), no_holes=bool((filled == mask).all()), volume_ml=margins)


def outside_points(pair: Pair, seed: int) -> tuple[Point, ...]:
    places = np.argwhere(pair.case.truth == 0)
    chosen = np.random.default_rng(seed).choice(len(places), OUTSIDE, replace=False)
    return tuple(point_at(place, pair.case.geometry) for place in places[chosen])


def point_at(place_kji: Sequence[Any], geometry: Geometry) -> Point:
    k, j, i = place_kji
    x, y, z = (float(v) for v in (geometry.matrix @ [i, j, k, 1])[:3])
    return Point((x, y, z))


def together(rois: Sequence[SegmentHints], points: Sequence[SegmentHints], shapes: Sequence[SegmentHints] | None = None) -> list[SegmentHints]:
    """For each segment all that is known of it."""
    rest = shapes or [SegmentHints() for _ in rois]
    return [replace(shape, roi=roi.roi, inside=point.inside) for shape, roi, point in zip(rest, rois, points, strict=True)]


def by_case(rows: Sequence[Row], voice: str) -> list[Row]:
    """A row for each case and one for their mean, a column for each way: Dice."""
    ways, cases = dict.fromkeys(row["annotation"] for row in rows), dict.fromkeys(row["case"] for row in rows)
    found = {(row["case"], row["annotation"]): row[voice] for row in rows}
    shown: list[Row] = [{"case": case} | {way: found[case, way] for way in ways} for case in cases]
    return [*shown, {"case": "**mean**"} | {way: round(float(np.mean([row[way] for row in shown])), 4) for way in ways}]
