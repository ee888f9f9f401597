"""The program of the process that reads TIFF and Zarr (`stacks` starts it): their libraries decode with foreign code, which a hostile file may crash
or make ask for any memory. It loads nothing of the package. On its command line: where modules are looked for, and how to read; on stdin: what; each
as JSON.

It says one line of JSON: what is there ("shape" (K, J, I), "dtype", "spacing" and "origin" along those axes in mm or null, "remarks"), or a
"refusal", a sentence and an advice. Then come the voxels, little-endian, in C order. What ends before that is damaged.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

SPARE_BYTES, COPIES = 1_000_000_000, 6  # what decoding may take beyond what a slab needs, and of that
SLAB_BYTES = 256_000_000
_MM = {
    **dict.fromkeys(("angstrom", "\u00c5"), 1e-7),
    **dict.fromkeys(("nanometer", "nm"), 1e-6),
    **dict.fromkeys(("micrometer", "micron", "microns", "um", "\u00b5m", "\u03bcm"), 1e-3),
    **dict.fromkeys(("millimeter", "mm"), 1.0),
    **dict.fromkeys(("centimeter", "cm"), 10.0),
    **dict.fromkeys(("meter", "m"), 1e3),
    **dict.fromkeys(("inch", "in"), 25.4),
}
_PLAIN_CODECS = {"bytes", "transpose", "blosc", "gzip", "zstd", "crc32c", "sharding_indexed"}  # none of which can run what a file says
_PLAIN_FILTERS = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "delta", "shuffle"}
_KINDS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]


class Refused(Exception):
    """With a sentence and an advice."""


def main(paths: str, how: str) -> None:
    sys.path[:] = json.loads(paths)
    given = sys.stdin.read()
    out, sys.stdout = sys.stdout.buffer, sys.stderr  # libraries may print
    options = json.loads(how)
    try:
        read = {"zarr": _zarr, "tiff": _tiff, "tiffs": _tiffs}[options["kind"]]
        head, slabs = read([Path(place) for place in json.loads(given)], options)
    except Refused as error:
        _say(out, {"refusal": error.args})
        return
    except ImportError as error:
        package = {"imagecodecs": "imagecodecs", "tifffile": "tifffile"}.get(error.name or "", "zarr")
        _say(out, {"refusal": (f"Reading {options['name']} needs the package {package}, which is not installed.", _INSTALL)})
        return
    _say(out, head)
    for slab in slabs:
        out.write(slab.astype(slab.dtype.newbyteorder("<"), order="C", copy=False).data)
    out.flush()


_INSTALL = "Install it: python -m pip install 'sparseseg[large]'."


def _say(out: IO[bytes], head: dict[str, Any]) -> None:
    out.write(json.dumps(head).encode("ascii") + b"\n")
    out.flush()


def _limit_memory(needed: int) -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        most, hard = taken + COPIES * needed + SPARE_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _head(shape: Iterable[int], dtype: Any, spacing: Any = None, origin: Any = None, remarks: Iterable[str] = ()) -> dict[str, Any]:
    return {"shape": [int(n) for n in shape], "dtype": dtype.name, "spacing": spacing, "origin": origin, "remarks": list(remarks)}


def _chosen(axes: str, shape: tuple[int, ...], options: dict[str, Any]) -> dict[str, int]:
    """Of each axis that is none of the volume's, in small letters, which index is read. Raises Refused where that is not said."""
    names = {"c": "channels", "t": "time points"}
    found = {}
    for axis, count in zip(axes, shape, strict=True):
        index = options["select"].get(axis)
        if index is None and count > 1:
            sentence = f"{options['name']} holds {count} {names.get(axis, f'volumes (axis {axis})')}."
            raise Refused(sentence, f"Choose one, counted from 0: --select {axis}=0.")
        if not 0 <= (index or 0) < count:
            raise Refused(f"{options['name']} has no {axis}={index}: it holds {count}.", "Count from 0.")
        found[axis] = index or 0
    if left := set(options["select"]) - {"level", *axes}:
        raise Refused(f"{options['name']} has no axis {min(left)} to choose on.", "Leave it out of --select.")
    return found


# ---------------------------------------------------------------- TIFF


def _tiff(paths: list[Path], options: dict[str, Any]) -> tuple[dict[str, Any], Iterator[Any]]:
    import numpy as np
    import tifffile

    _limit_memory(0)
    file = tifffile.TiffFile(paths[0])
    series = file.series[0]
    levels, level = len(series.levels), options["select"].get("level", 0)
    if not 0 <= level < levels:
        raise Refused(f"{options['name']} has no level {level}: it holds {levels}.", "Count from 0.")
    full, series = series.shape, series.levels[level]
    axes, shape = series.axes.lower(), tuple(series.shape)
    if axes.endswith("s") or not axes.endswith("yx"):
        raise Refused(f"{options['name']} has several values in each voxel (axes {series.axes}).", "Save it as a grey stack.")
    others = [axis for axis, count in zip(axes[:-2], shape[:-2], strict=True) if count > 1]
    along = "z" if "z" in axes else others[0] if len(others) == 1 else ""
    if not along:
        raise Refused(f"{options['name']} is not a stack of slices (axes {series.axes}).", "Save it with an axis Z.")
    at = axes.index(along)
    chosen = _chosen(axes[:at] + axes[at + 1 : -2], shape[:at] + shape[at + 1 : -2], options)
    index = [slice(None) if n == at else chosen[axis] for n, axis in enumerate(axes[:-2])]
    pages = np.arange(int(np.prod(shape[:-2]))).reshape(shape[:-2])[tuple(index)].reshape(-1)
    spacing, origin = _spacing_of_tiff(file, [shape[at] / full[at], shape[-2] / full[-2], shape[-1] / full[-1]])
    _limit_memory(shape[-2] * shape[-1] * series.dtype.itemsize)
    return _head((len(pages), *shape[-2:]), series.dtype, spacing, origin), _planes_of_tiff(series, pages)


def _planes_of_tiff(series: Any, pages: Any) -> Iterator[Any]:
    """A page's voxels at a time; of a file whose pages follow each other in one piece, as ImageJ writes large ones, by where they lie."""
    import numpy as np

    plane = series.shape[-2:]
    with open(series.parent.filehandle.path, "rb") as file:
        for number in pages:
            if series.dataoffset is None:
                yield series.pages[int(number)].asarray().reshape(plane)
                continue
            dtype = series.dtype.newbyteorder(series.parent.byteorder)
            count = int(np.prod(plane))
            file.seek(series.dataoffset + int(number) * count * dtype.itemsize)
            yield np.frombuffer(file.read(count * dtype.itemsize), dtype).reshape(plane)


def _spacing_of_tiff(file: Any, shares: list[float]) -> tuple[Any, Any]:
    """(K, J, I) in mm, of a level whose axes have these shares of the first one's voxels; null where the file does not say."""
    found = None
    if file.is_ome:
        found = _spacing_of_ome(file.ome_metadata)
    elif file.is_imagej:
        found = _spacing_of_imagej(file)
    return None if found is None else [step / share for step, share in zip(found, shares, strict=True)], None


def _spacing_of_ome(text: str) -> list[float] | None:
    pixels = next((element for element in ElementTree.fromstring(text).iter() if element.tag.endswith("}Pixels")), None)
    with suppress(KeyError, ValueError):
        if pixels is not None:
            return [float(pixels.attrib[f"PhysicalSize{axis}"]) * _MM[pixels.attrib.get(f"PhysicalSize{axis}Unit", "um")] for axis in "ZYX"]
    return None


def _spacing_of_imagej(file: Any) -> list[float] | None:
    with suppress(KeyError, ValueError, TypeError, ZeroDivisionError, AttributeError):
        said, tags = file.imagej_metadata, file.pages[0].tags
        unit = str(said["unit"]).encode("ascii", "backslashreplace").decode("ascii").replace("\\\\u00B5", "u").replace("\\xb5", "u")
        in_plane = [tags[name].value for name in ("YResolution", "XResolution")]
        return [float(said["spacing"]) * _MM[unit], *(below / above * _MM[unit] for above, below in in_plane)]
    return None


def _tiffs(paths: list[Path], options: dict[str, Any]) -> tuple[dict[str, Any], Iterator[Any]]:
    """A file for each slice."""
    import tifffile

    _limit_memory(0)
    _chosen("", (), options)
    first = _page(tifffile, paths[0], options)
    _limit_memory(first.nbytes)

    def planes() -> Iterator[Any]:
        for path in paths:
            plane = _page(tifffile, path, options)
            if (plane.shape, plane.dtype.newbyteorder("=")) != (first.shape, first.dtype.newbyteorder("=")):
                raise ValueError(f"{path.name} is of another size or type")
            yield plane

    return _head((len(paths), *first.shape), first.dtype), planes()


def _page(tifffile: Any, path: Path, options: dict[str, Any]) -> Any:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if len(page.shape) != 2:
            raise Refused(f"{path.name} in {options['name']} has several values in each voxel.", "Save the slices in grey.")
        return page.asarray()


# ---------------------------------------------------------------- Zarr


def _zarr(paths: list[Path], options: dict[str, Any]) -> tuple[dict[str, Any], Iterator[Any]]:
    import zarr
    from zarr.storage import LocalStore

    _check_plain(paths[0])
    place, levels = _multiscales(paths[0], options)
    level = options["select"].get("level", 0)
    if not 0 <= level < len(levels):
        raise Refused(f"{options['name']} has no level {level}: it holds {len(levels)}.", "Count from 0.")
    folder, axes, spacing, origin = levels[level]
    _check_codecs(place / folder, options)
    array = zarr.open_array(LocalStore(place / folder, read_only=True), mode="r")
    axes = axes or "tczyx"[-array.ndim :]
    if len(axes) != array.ndim or axes[-3:] != "zyx" or len(set(axes)) != len(axes):
        raise Refused(f"{options['name']} is no volume (axes {' '.join(axes)}).", "Give one whose axes end in z, y, x.")
    chosen = _chosen(axes[:-3], array.shape[:-3], options)
    index = [chosen[axis] for axis in axes[:-3]]
    inner = array.shape[-3:]
    plane = inner[1] * inner[2] * array.dtype.itemsize
    depth = max(1, min(array.chunks[-3], SLAB_BYTES // max(1, plane)))
    chunk = array.dtype.itemsize * _product(array.chunks)
    _limit_memory(max(depth * plane, chunk))

    def slab(k: int) -> Any:
        part: tuple[int | slice, ...] = (*index, slice(k, k + depth))
        return array[part]

    return _head(inner, array.dtype, spacing, origin), map(slab, range(0, inner[0], depth))


def _product(numbers: Iterable[int]) -> int:
    product = 1
    for number in numbers:
        product *= int(number)
    return product


def _check_plain(folder: Path) -> None:
    """Nothing but files and folders in it: a link or a pipe may be anything."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = (Path(place) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise Refused(f"{folder.name} holds {name:.60}, which is a link, a pipe or a device.", "Copy the image with its files.")


def _json(path: Path) -> Any:
    with open(path, "rb") as file:
        return json.loads(file.read(64_000_000))


def _attributes(group: Path) -> dict[str, Any]:
    """What OME says of a group, in either version; empty where nothing."""
    if (group / "zarr.json").exists():
        return dict(_json(group / "zarr.json").get("attributes", {}).get("ome", {}))
    return dict(_json(group / ".zattrs")) if (group / ".zattrs").exists() else {}


def _multiscales(path: Path, options: dict[str, Any]) -> tuple[Path, list[tuple[str, str, Any, Any]]]:
    """The group that holds the levels, and of each its array's name, axes, spacing and origin; a plain array has one level and says nothing."""
    if (path / ".zarray").exists() or ((path / "zarr.json").exists() and _json(path / "zarr.json").get("node_type") == "array"):
        return path, [("", "", None, None)]
    for place in (path, path / "0"):  # as bioformats2raw has its images
        if scales := _attributes(place).get("multiscales"):
            return place, [_level(scales[0], dataset) for dataset in scales[0]["datasets"]]
    raise Refused(f"{options['name']} is no OME-Zarr image.", "Give the group that holds its resolution levels, or one array.")


def _level(scales: dict[str, Any], dataset: dict[str, Any]) -> tuple[str, str, Any, Any]:
    folder, axes = str(dataset["path"]), scales["axes"]
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise ValueError(f"a level at {folder:.80}")
    names = "".join(axis["name"] for axis in axes)
    scale, origin = [1.0] * len(axes), [0.0] * len(axes)
    for step in (*dataset.get("coordinateTransformations", ()), *scales.get("coordinateTransformations", ())):
        if step["type"] == "scale":
            scale = [a * float(b) for a, b in zip(scale, step["scale"], strict=True)]
            origin = [a * float(b) for a, b in zip(origin, step["scale"], strict=True)]
        elif step["type"] == "translation":
            origin = [a + float(b) for a, b in zip(origin, step["translation"], strict=True)]
    units = [_MM.get(str(axis.get("unit", ""))) for axis in axes[-3:]]
    if None in units:
        return folder, names, None, None
    return folder, names, *([float(v) * unit for v, unit in zip(said[-3:], units, strict=True)] for said in (scale, origin))  # type: ignore[return-value, operator]


def _check_codecs(folder: Path, options: dict[str, Any]) -> None:
    """Only numbers, and only codecs that unpack and nothing else: there are some that run what a file says."""
    if (folder / "zarr.json").exists():
        said = _json(folder / "zarr.json")
        used, kind, plain = set(_names(said["codecs"])), said["data_type"], _PLAIN_CODECS
        used |= {"storage_transformers"} if said.get("storage_transformers") else set()
    else:
        said = _json(folder / ".zarray")
        steps = [*(said.get("filters") or ()), *([said["compressor"]] if said.get("compressor") else ())]
        used, kind, plain = {step["id"] for step in steps}, _kind(said["dtype"]), _PLAIN_FILTERS
    if strange := used - plain:
        raise Refused(f"{options['name']} is packed by {min(strange):.40}, which is not read.", "Save it with blosc, zstd or gzip.")
    if kind not in _KINDS:
        raise Refused(f"{options['name']} has elements of a type that is not read ({kind!s:.40}).", "Save it as whole numbers or float32.")


def _names(codecs: list[dict[str, Any]]) -> Iterator[str]:
    """Of codecs, and of those within."""
    for codec in codecs:
        yield str(codec["name"])
        for inner in ("codecs", "index_codecs"):
            yield from _names(codec.get("configuration", {}).get(inner, []))


def _kind(code: str) -> str:
    import numpy as np

    return np.dtype(code).name if isinstance(code, str) and len(code) == 3 else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
