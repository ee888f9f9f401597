"""Results as .npy, TIFF and Zarr, part by part. The libraries of the last two are loaded where they are used; `output` asks for them before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..contract.classes import ClassTable
from ..contract.geometry import Geometry
from ..contract.store import write_header
from .output import PACKING_LEVEL, Outgoing

_CHUNK_KJI = (32, 256, 256)  # what viewers ask for at a time
_CHUNK_BYTES = 1 << 26  # of chunks along one plane
_CLASSIC_BYTES = 4_000_000_000  # beyond which a TIFF's addresses are too short, and it is a BigTIFF


def write_npy(path: Path, outgoing: Outgoing) -> None:
    with path.open("wb") as file:
        write_header(file, outgoing.shape, outgoing.dtype)
        for slab in outgoing:
            file.write(slab.data)


def write_tiff(path: Path, outgoing: Outgoing, geometry: Geometry) -> None:
    """OME-TIFF, a page for each slice, whose voxels have their size in mm; where they lie it cannot say."""
    import tifffile

    sizes = {f"PhysicalSize{axis}": step for axis, step in zip("XYZ", geometry.spacing_ijk_mm, strict=True)}
    units = {f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}
    with tifffile.TiffWriter(path, bigtiff=outgoing.array.nbytes > _CLASSIC_BYTES, ome=True) as file:
        file.write(
            (plane for slab in outgoing for plane in slab),
            shape=outgoing.shape,
            dtype=outgoing.dtype,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": PACKING_LEVEL},
            metadata={"axes": "ZYX", **sizes, **units},
        )


def write_zarr(path: Path, outgoing: Outgoing, geometry: Geometry, classes: ClassTable | None = None) -> None:
    """OME-Zarr 0.5 of one resolution level; with `classes`, a label image."""
    import zarr

    depth = max(1, min(_CHUNK_KJI[0], _CHUNK_BYTES // max(1, outgoing.array[0].nbytes)))
    chunks = tuple(min(n, chunk) for n, chunk in zip(outgoing.shape, (depth, *_CHUNK_KJI[1:]), strict=True))
    group = zarr.create_group(str(path), zarr_format=3, attributes={"ome": _ome(geometry, classes)})
    array = group.create_array("0", shape=outgoing.shape, chunks=chunks, dtype=outgoing.dtype, dimension_names=("z", "y", "x"))
    at = 0
    for slab in outgoing.by(chunks[0]):
        array[at : at + len(slab)] = slab
        at += len(slab)


def _ome(geometry: Geometry, classes: ClassTable | None) -> dict[str, Any]:
    steps = [
        {"type": "scale", "scale": list(geometry.spacing_kji_mm)},
        {"type": "translation", "translation": list(geometry.origin_lps_mm[::-1])},
    ]
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": steps}]
    said: dict[str, Any] = {"version": "0.5", "multiscales": [{"name": "segmentation" if classes else "image", "axes": axes, "datasets": levels}]}
    if classes is not None:
        colors = [[*(int(np.rint(255 * part)) for part in segment.color), 255] for segment in classes.segments]
        said["image-label"] = {
            "version": "0.5",
            "colors": [{"label-value": value, "rgba": color} for value, color in enumerate(colors, start=1)],
            "properties": [{"label-value": value, "name": segment.name} for value, segment in enumerate(classes.segments, start=1)],
        }
    return said
