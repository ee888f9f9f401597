"""Label maps as people have them: any whole numbers as labels, on the image's grid or on the same voxels in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract.classes import MAX_SEGMENTS, ClassTable, Segment, distinct_color
from ..contract.errors import AnnotationError, InputError
from ..contract.geometry import Geometry
from ..contract.store import IN_MEMORY, Store, slabs

_MOST = 0.5  # of all voxels: a label that covers more is hardly a structure
_LISTED = 20  # values in a sentence
_ON_GRID = 0.01  # voxels: how far a re-ordered grid may lie beside the other


# ---------------------------------------------------------------- the same voxels in another order


def ordered_as(array: np.ndarray, grid: Geometry, geometry: Geometry) -> tuple[np.ndarray, Geometry]:
    """An array (K, J, I, ...) on `grid` with its axes in the order and direction of those of `geometry`, and its grid then; voxels stay where
    they are in the patient. Unchanged where the axes of the two are not parallel."""
    steps = np.linalg.solve(geometry.matrix[:3, :3], grid.matrix[:3, :3])  # of `grid`, in voxels of `geometry`; columns I, J, K
    turn = np.rint(steps)
    if np.abs(steps - turn).max() * max(grid.shape_kji) > 0.5 or (np.abs(turn).sum(axis=0) != 1).any() or (np.abs(turn).sum(axis=1) != 1).any():
        return array, grid
    matrix = grid.matrix
    sizes = grid.shape_kji[::-1]
    source = [int(np.abs(turn[axis]).argmax()) for axis in range(3)]  # which axis (IJK) of the file becomes axis I, J, K
    flipped = [axis for axis in range(3) if turn[axis, source[axis]] < 0]
    moved = matrix[:, [*source, 3]]
    for axis in flipped:
        moved[:3, 3] += moved[:3, axis] * (sizes[source[axis]] - 1)
        moved[:3, axis] *= -1
    kji = [2 - source[2 - axis] for axis in range(3)]  # the same, for array axes
    order = [*kji, *range(3, array.ndim)]
    turned = np.flip(array.transpose(order), tuple(2 - axis for axis in flipped))
    return turned, Geometry(turned.shape[:3], tuple(map(tuple, moved)))


def on_grid(array: np.ndarray, grid: Geometry, geometry: Geometry, path: Path) -> tuple[np.ndarray, list[str]]:
    """The array on `geometry`, re-ordered where that is all that differs, and a remark on it. Raises InputError."""
    if not grid.difference_from(geometry):
        return array, []
    turned, moved = ordered_as(array, grid, geometry)
    difference = moved.difference_from(geometry)
    if difference:
        difference = grid.difference_from(geometry)
        raise InputError(f"{path.name} does not lie on the image's grid: {difference}.", "Draw or resample the labels on the image.")
    return turned, [f"{path.name} holds its voxels in another order than the image (axes turned or flipped): they were put in the image's order."]


# ---------------------------------------------------------------- values


def check_whole(values: np.ndarray, path: Path) -> None:
    """Raises InputError for values that are not whole numbers, or negative."""
    if values.dtype.kind == "f" and not all((np.isfinite(slab) & (slab == np.floor(slab))).all() for slab in slabs(values)):
        raise InputError(f"{path.name} has values that are not whole numbers.", "Give a label map, not an intensity image or a probability map.")
    if values.min(initial=0) < 0:
        raise InputError(f"{path.name} has negative values (down to {values.min():g}).", "Give a label map: 0 nothing, other whole numbers labels.")


def dense(values: np.ndarray, path: Path) -> tuple[np.ndarray, ClassTable]:
    """A label map in which 0 is background: a segment for each other value that occurs; labels (K, J, I) uint8, 1, 2, ... in their order."""
    check_whole(values, path)
    found = [value for value in _occurring(values, path) if value != 0]
    table = {value: label for label, value in enumerate(found, start=1)}
    labels = _kept(values, table, path, IN_MEMORY)
    if found == list(range(1, len(found) + 1)):
        return labels, ClassTable.numbered(len(found))
    return labels, _table(found, [f"label {value}" for value in found])


def sparse(
    values: np.ndarray, path: Path, background: str | None = None, unlabelled: int = 0, store: Store = IN_MEMORY
) -> tuple[np.ndarray, ClassTable, list[str], str]:
    """A label map of strokes: (K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c; the segments; remarks; and in words, what each
    value was taken as.

    `unlabelled` and `background` (default 1; "none": there is no such label) say which values mean that; every other value that occurs is a
    segment. Raises InputError, AnnotationError, and what the store does.
    """
    check_whole(values, path)
    behind = _background_value(background, path)
    if behind == unlabelled:
        raise InputError(f"The value {behind} cannot mean both background and unlabelled.", "Give --unlabelled another value.")
    found = _occurring(values, path)
    structures = [value for value in found if value not in (unlabelled, behind)]
    if not structures:
        raise AnnotationError(
            f"{path.name} holds no segment: its largest value is {max(found, default=0)}.", "Label structures 2, 3, ..., the background 1."
        )
    usual = behind == 1 and unlabelled == 0 and max(structures) < 256
    names = [f"segment {value - 1}" if usual else f"label {value}" for value in structures]
    codes = {value: code for code, value in enumerate(structures, start=2)} | ({} if behind is None else {behind: 1})
    annotation = _kept(values, codes, path, store)
    meanings = [f"{unlabelled}: unlabelled", *([] if behind is None else [f"{behind}: background"])]
    listed = ", ".join(f"{value}: {name}" for value, name in list(zip(structures, names, strict=True))[:_LISTED])
    note = f"{path.name}: {', '.join(meanings)}, {listed}{', ...' if len(structures) > _LISTED else ''}"
    if structures != list(range(2, len(structures) + 2)):
        note += f"; in a label map as result they are 1 to {len(structures)}, in this order"
    return annotation, _table(structures, names), _suspicions(annotation, structures, path), note


def _background_value(background: str | None, path: Path) -> int | None:
    if background is None:
        return 1
    if background == "none":
        return None
    if not background.isdigit():
        sentence = f"{path.name} is a label map, in which the background is a value (usually 1) or none, not {background!r}."
        raise InputError(sentence, "Give --background a value, or leave it out.")
    return int(background)


def _suspicions(annotation: np.ndarray, structures: list[int], path: Path) -> list[str]:
    """What looks like another numbering: strokes are few, so no structure covers most of the volume."""
    counts = _counts(annotation)
    remarks = []
    for code, value in enumerate(structures, start=2):
        if counts[code] > _MOST * annotation.size:
            part = f"{100 * counts[code] / annotation.size:.0f} %"
            last = value == structures[-1]
            guess = "nnU-Net's ignore label? Then give" if last else "another numbering? Then give"
            remarks.append(f"In {path.name}, value {value} covers {part} of the volume: {guess} --unlabelled {value} --background 0.")
    return remarks


def _occurring(values: np.ndarray, path: Path) -> list[int]:
    """The values that occur, ascending. Raises InputError for too many to be labels."""
    if values.dtype == np.uint8:
        return [int(value) for value in np.flatnonzero(_counts(values))]
    found: set[int] = set()
    for slab in slabs(values):
        found.update(int(value) for value in np.unique(slab))
        if len(found) > 100 * MAX_SEGMENTS:
            break  # an intensity image
    if len(found) > MAX_SEGMENTS + 2:
        listed = ", ".join(map(str, sorted(found)[:5]))
        sentence = f"{path.name} has more than {MAX_SEGMENTS} different values ({listed}, ...)."
        raise InputError(sentence, "Give a label map, not an intensity image, or split it.")
    return sorted(found)


def _counts(values: np.ndarray) -> np.ndarray:
    """How often each value of uint8 occurs; slab by slab, as numpy counts in eight bytes a voxel."""
    counts = np.zeros(256, np.int64)
    for slab in slabs(values):
        counts += np.bincount(slab.reshape(-1), minlength=256)
    return counts


def _kept(values: np.ndarray, table: dict[int, int], path: Path, store: Store) -> np.ndarray:
    return store.keep(path.name, values.shape, np.uint8, (mapped(slab, table) for slab in slabs(values)))


def mapped(values: np.ndarray, table: dict[int, int]) -> np.ndarray:
    """`table` of each value, uint8, 0 where it lacks one."""
    if values.dtype == np.uint8:
        return np.take(np.array([table.get(value, 0) for value in range(256)], np.uint8), values, mode="clip")
    if max(table, default=0) < 1 << 16:
        codes = np.zeros(1 + max(table, default=0), np.uint8)
        for value, code in table.items():
            codes[value] = code
        known = (values >= 0) & (values < len(codes))
        return np.where(known, codes[np.where(known, values, 0).astype(np.intp)], np.uint8(0))
    labels = np.zeros(values.shape, np.uint8)
    for value, code in table.items():
        labels[values == value] = code
    return labels


def _table(values: list[int], names: list[str]) -> ClassTable:
    segments = (Segment(f"Segment_{c}", name, distinct_color(c - 1)) for c, name in enumerate(names, start=1))
    return ClassTable(tuple(segments))
