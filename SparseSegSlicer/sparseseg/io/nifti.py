"""NIfTI, version 1 and 2, in and out. Read here and not by ITK, which takes missing voxels and not-a-number for zeros, knows no version 2, and
chooses silently between the two transforms of a header.

A NIfTI header may place its voxels twice: by a qform (a rotation, cannot be sheared) and by an sform (any matrix), each with a code, 0 where
it does not count. Programs differ in which one they follow; so where the two differ, the user is told. Unless the user chooses, that one
rules which ITK, and so 3D Slicer, follows: strokes painted there must fit. (Where the sform rules, ITK takes the voxels' size from elsewhere;
here the sform has the say.)
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..contract.errors import InputError, SparseSegError
from ..contract.geometry import Geometry
from ..contract.opening import open_file
from ..contract.store import IN_MEMORY, Store, slabs
from . import refusals, voxels
from .output import Outgoing, damaged, deflated, raw, unreadable

TRANSFORMS = ("auto", "qform", "sform")
_RIGHT_ANGLES = 1e-3  # of cosines: above the rounding of float32, below any tilt
_APART = 0.01  # of a voxel: two transforms whose corners are closer than this say the same
_FIELDS: dict[int, dict[str, tuple[str, int]]] = {  # by the header's size: type and offset of each field
    348: {
        **{"sizeof_hdr": ("i4", 0), "dim": ("8i2", 40), "datatype": ("i2", 70), "bitpix": ("i2", 72), "pixdim": ("8f4", 76)},
        **{"vox_offset": ("f4", 108), "scl_slope": ("f4", 112), "scl_inter": ("f4", 116), "units": ("u1", 123), "cal": ("2f4", 124)},
        **{"private": ("S34", 4), "descrip": ("S104", 148), "qform_code": ("i2", 252), "sform_code": ("i2", 254)},
        **{"quatern": ("6f4", 256), "srow": ("(3,4)f4", 280), "intent": ("i2", 68), "intent_name": ("S16", 328), "magic": ("S4", 344)},
    },
    540: {
        **{"sizeof_hdr": ("i4", 0), "magic": ("S8", 4), "datatype": ("i2", 12), "bitpix": ("i2", 14), "dim": ("8i8", 16)},
        **{"pixdim": ("8f8", 104), "vox_offset": ("i8", 168), "scl_slope": ("f8", 176), "scl_inter": ("f8", 184), "cal": ("2f8", 192)},
        **{"descrip": ("S104", 240), "qform_code": ("i4", 344), "sform_code": ("i4", 348), "quatern": ("6f8", 352)},
        **{"srow": ("(3,4)f8", 400), "units": ("i4", 500), "intent": ("i4", 504), "intent_name": ("S16", 508)},
    },
}
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COMPLEX, _COLOUR = (32, 1792, 2048), {128: 3, 2304: 4}
_UNITS_MM = {1: 1000.0, 2: 1.0, 3: 1e-3}  # metres, millimetres, micrometres
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Header:
    """A header's fields, `fields` a numpy record of one of the two layouts in the file's byte order."""

    fields: Any

    def number(self, name: str) -> int:
        return int(self.fields[name])

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of all axes but the last ones of one element, fastest first; at least three."""
        dim = [int(n) for n in self.fields["dim"]]
        sizes = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else []
        while len(sizes) > 3 and sizes[-1] == 1:
            sizes.pop()
        return tuple(sizes)

    @property
    def dtype(self) -> np.dtype:
        order = self.fields.dtype["sizeof_hdr"].byteorder
        return np.dtype(_TYPES[self.number("datatype")]).newbyteorder(order)

    def unit_mm(self) -> float:
        return _UNITS_MM.get(self.number("units") & 7, 1.0)

    def qform(self) -> np.ndarray:
        """4 x 4, voxels to RAS in the file's unit."""
        b, c, d, *offset = (float(v) for v in self.fields["quatern"])
        rest = 1 - (b * b + c * c + d * d)
        if rest < 1e-7:  # a turn by 180 degrees, and rounding
            length = math.sqrt(b * b + c * c + d * d)
            a, b, c, d = 0.0, b / length, c / length, d / length
        else:
            a = math.sqrt(rest)
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        matrix = np.eye(4)
        matrix[:3, :3] = turn * self.steps() * (1, 1, -1 if self.fields["pixdim"][0] < 0 else 1)
        matrix[:3, 3] = offset
        return matrix

    def sform(self) -> np.ndarray:
        """4 x 4, voxels to RAS in the file's unit."""
        return np.vstack([np.asarray(self.fields["srow"], float), [0, 0, 0, 1]])

    def steps(self) -> np.ndarray:
        steps = np.asarray(self.fields["pixdim"][1:4], float)
        return np.where(np.isfinite(steps) & (steps > 0), steps, 1.0)


# ---------------------------------------------------------------- in


def is_nifti(head: bytes) -> bool:
    """Whether a file that begins so (unpacked) is NIfTI, or the Analyze that NIfTI came from."""
    return len(head) >= 348 and any(int.from_bytes(head[:4], order) in _FIELDS for order in ("little", "big"))  # type: ignore[arg-type]


def read(path: Path, transform: str = "auto", store: Store = IN_MEMORY) -> tuple[np.ndarray, Geometry, list[str], bytes]:
    """Voxels (K, J, I), scaled as the header says, their grid, remarks, and the header as bytes.

    transform: "qform" or "sform" chooses where both are there. Raises InputError, and what the store does.
    """
    try:
        with open_file(path) as file:
            header = _header(voxels.beginning(file, 540), path)
            _check(header, path)
            geometry, remarks = place(header, path, transform)
            return _voxels(file, header, path, store), geometry, remarks, header.fields.tobytes()
    except (OSError, EOFError, zlib.error, ArithmeticError, ValueError) as error:
        if isinstance(error, SparseSegError):
            raise
        raise unreadable(path, error) from error


def _header(head: bytes, path: Path) -> Header:
    for order in ("<", ">"):
        size = int(np.frombuffer(head[:4], f"{order}i4")[0]) if len(head) >= 348 else 0
        if size in _FIELDS and len(head) >= size:
            return Header(np.frombuffer(head[:size], _layout(size, order))[0])
    raise EOFError(f"{path} has no NIfTI header")


def _layout(size: int, order: str) -> np.dtype:
    names, places = list(_FIELDS[size]), list(_FIELDS[size].values())
    formats, offsets = [kind for kind, _ in places], [offset for _, offset in places]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size}).newbyteorder(order)  # type: ignore[arg-type, call-overload]


def _check(header: Header, path: Path) -> None:
    """Raises InputError for what makes no 3-D grey image."""
    kind, shape = header.number("datatype"), header.shape
    magic = bytes(header.fields["magic"])[:3]
    if magic == b"ni1" or not magic.startswith(b"n+"):
        raise InputError(f"{path.name} is a header without voxels (Analyze, or NIfTI as a pair of files).", "Save it as one .nii or .nii.gz file.")
    if kind in _COMPLEX:
        raise refusals.complex_numbers(path)
    per_voxel = _COLOUR.get(kind, math.prod(shape[4:]))
    if per_voxel > 1:
        raise refusals.many_values(path, per_voxel)
    if kind not in _TYPES:
        raise InputError(f"{path.name} has voxels of a type that is not read (NIfTI data type {kind}).", "Save it as whole numbers or float32.")
    if len(shape) > 3:
        raise refusals.four_dimensions(path, shape[3])
    if len(shape) != 3:
        raise refusals.not_three_dimensions(path, len(shape))
    if min(shape) < 1:
        raise damaged(path)
    if min(shape) < 2:
        raise refusals.one_slice(path, shape)


def _voxels(file: IO[bytes], header: Header, path: Path, store: Store) -> np.ndarray:
    dtype, shape = header.dtype, header.shape
    slope, inter = float(header.fields["scl_slope"]), float(header.fields["scl_inter"])
    array = voxels.read(path, file, dtype, shape[::-1], skip=int(header.fields["vox_offset"]), store=store)
    if slope == 0 or not math.isfinite(slope) or (slope, inter) == (1, 0):
        return array
    if not math.isfinite(inter):
        inter = 0.0
    largest = max(abs(float(value) * slope + inter) for value in (array.min(), array.max()))
    whole = dtype.kind in "iu" and slope.is_integer() and inter.is_integer() and largest < 2**31
    kept = np.dtype(np.int32 if whole else np.float32)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        return store.keep(path.name, array.shape, kept, ((slab * slope + inter).astype(kept) for slab in slabs(array)))


# ---------------------------------------------------------------- where it lies


def place(header: Header, path: Path, transform: str = "auto") -> tuple[Geometry, list[str]]:
    """The grid, and what is to be said of it. Raises InputError for a sheared sform, or a chosen transform that the file lacks."""
    codes = {"qform": header.number("qform_code"), "sform": header.number("sform_code")}
    if transform != "auto" and codes[transform] <= 0:
        raise InputError(f"{path.name} has no {transform} (its code is 0).", "Leave --nifti-transform out.")
    there = {name: matrix for name, matrix in (("qform", header.qform()), ("sform", header.sform())) if codes[name] > 0}
    if not there:
        unplaced = np.diag([*header.steps(), 1.0])
        sentence = f"{path.name} does not say where it lies (qform and sform codes are 0): its axes are taken as left, posterior, superior."
        return _geometry(header, _LPS @ unplaced), [sentence]
    _check_usable(there, path)
    if transform != "qform" and "sform" in there and _sheared(there["sform"]):  # a qform cannot be
        raise _refuse_sheared(codes, path)
    apart = _apart_mm(header, there)
    ruling = transform if transform != "auto" else _ruling(codes, apart <= _APART * float(header.steps().min() * header.unit_mm()))
    geometry = _geometry(header, there[ruling])
    remarks = []
    if apart > _APART * min(geometry.spacing_ijk_mm):
        other = "qform" if ruling == "sform" else "sform"
        chosen = "as chosen" if transform != "auto" else f"unless --nifti-transform {other} says otherwise"
        remarks.append(
            f"{path.name} has two transforms that lie up to {apart:.3g} mm apart, qform (code {codes['qform']}) and sform (code {codes['sform']}): "
            f"the {ruling} rules, {chosen}."
        )
    elif not np.allclose(geometry.spacing_ijk_mm, header.steps() * header.unit_mm(), rtol=1e-3):
        sizes = (" x ".join(f"{v:.4g}" for v in found) for found in (geometry.spacing_ijk_mm, header.steps() * header.unit_mm()))
        remarks.append("{} has voxels of {} mm by its sform, but of {} mm by its field pixdim: the sform rules.".format(path.name, *sizes))
    if header.unit_mm() != 1:
        remarks.append(f"{path.name} measures in {'metres' if header.unit_mm() > 1 else 'micrometres'}, which were made millimetres.")
    return geometry, remarks


def _ruling(codes: dict[str, int], alike: bool) -> str:
    """The transform that ITK follows."""
    if codes["qform"] <= 0 or (codes["sform"] > 0 and (alike or codes["sform"] == 1)):
        return "sform"
    return "qform"


def _check_usable(there: dict[str, np.ndarray], path: Path) -> None:
    for name, matrix in there.items():
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if not np.isfinite(matrix).all() or lengths.min() <= 0:
            raise InputError(f"The {name} of {path.name} is unusable: its axes do not span space.", "Re-export the volume with a valid orientation.")


def _sheared(matrix: np.ndarray) -> bool:
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLES)


def _refuse_sheared(codes: dict[str, int], path: Path) -> InputError:
    advice = "Resample the image to a grid with right angles."
    if codes["qform"] > 0:
        advice += f" If its qform (code {codes['qform']}), which is not sheared, is right, take that: --nifti-transform qform."
    return InputError(f"The axes of {path.name} are not at right angles: its sform (code {codes['sform']}) is sheared (gantry tilt?).", advice)


def _apart_mm(header: Header, there: dict[str, np.ndarray]) -> float:
    """How far (mm) the two transforms put a corner from each other; 0 where there is one."""
    if len(there) < 2:
        return 0.0
    ends = [(0, n - 1) for n in header.shape]
    corners = np.array([(i, j, k, 1) for i in ends[0] for j in ends[1] for k in ends[2]], float)
    return float(np.linalg.norm(corners @ (there["qform"] - there["sform"]).T, axis=1).max()) * header.unit_mm()


def _geometry(header: Header, to_ras: np.ndarray) -> Geometry:
    scaled = to_ras.copy()
    scaled[:3] *= header.unit_mm()
    return Geometry.from_ijk_to_ras(header.shape[::-1], scaled)


# ---------------------------------------------------------------- out


def write(path: Path, outgoing: Outgoing, geometry: Geometry, like: bytes = b"") -> None:
    """An image (K, J, I), packed where the name ends in .gz; `like`, the header of the image that it lies on, gives its transforms and codes.

    Raises OSError, also where the format cannot hold the grid.
    """
    header = _like(like) if like else _new(geometry)
    fields = header.fields
    order = fields.dtype["sizeof_hdr"].byteorder
    kind = next((number for number, name in _TYPES.items() if np.dtype(name) == outgoing.dtype.newbyteorder("=")), None)
    if kind is None or max(outgoing.shape) > np.iinfo(fields.dtype["dim"].base).max:
        raise OSError(f"the format cannot hold an array of {outgoing.shape} {outgoing.dtype}")
    fields["dim"] = [3, *outgoing.shape[::-1], 1, 1, 1, 1]
    fields["datatype"], fields["bitpix"] = kind, outgoing.dtype.itemsize * 8
    fields["vox_offset"], fields["scl_slope"], fields["scl_inter"] = fields.nbytes + 4, 1, 0
    fields["cal"], fields["intent"], fields["intent_name"] = 0, 0, b""
    fields["descrip"] = b""  # free text of whoever made the image, which may name a patient
    if "private" in fields.dtype.names:
        fields["private"] = b""
    if not like:
        _check_holds(header, geometry, path)
    head = np.frombuffer(fields.tobytes() + b"\0\0\0\0", np.uint8)
    parts = itertools.chain([head], (slab.astype(slab.dtype.newbyteorder(order), copy=False) for slab in outgoing))
    with path.open("wb") as file:
        file.writelines(deflated(parts) if path.name.endswith(".gz") else map(raw, parts))


def _check_holds(header: Header, geometry: Geometry, path: Path) -> None:
    difference = place(header, path)[0].difference_from(geometry)
    if difference:
        raise OSError(f"the format cannot hold the grid: {difference}")


def _like(header: bytes) -> Header:
    order = "<" if int.from_bytes(header[:4], "little") in _FIELDS else ">"
    return Header(np.frombuffer(header, _layout(len(header), order)).copy()[0])


def _new(geometry: Geometry) -> Header:
    """A header with this grid in both transforms, as scanner coordinates; in the sform alone where a qform's numbers cannot hold it."""
    fields = np.zeros(1, _layout(348, "<"))[0]
    matrix = geometry.ijk_to_ras()
    steps = np.array(geometry.spacing_ijk_mm)
    turn = matrix[:3, :3] / steps
    mirrored = np.linalg.det(turn) < 0
    fields["sizeof_hdr"], fields["magic"], fields["units"] = 348, b"n+1", 2
    fields["pixdim"] = [-1 if mirrored else 1, *steps, 0, 0, 0, 0]
    fields["qform_code"], fields["sform_code"] = 1, 1
    fields["dim"] = [3, *geometry.shape_kji[::-1], 1, 1, 1, 1]
    fields["quatern"][3:] = matrix[:3, 3]
    fields["srow"] = matrix[:3]
    header = Header(fields)
    _set_turn(header, _quaternion(turn * (1, 1, -1 if mirrored else 1)), matrix)
    if _apart_mm(header, {"qform": header.qform(), "sform": header.sform()}) > _APART * steps.min():
        fields["qform_code"] = 0  # turned almost half round: in float32, 1 - b² - c² - d² is too coarse
    return header


def _set_turn(header: Header, exact: Sequence[float], matrix: np.ndarray) -> None:
    """b, c, d as the file can hold them: of each the nearest number or the one on either side, whichever three give the matrix best. Near half a turn
    readers find a from the difference of almost equal numbers, so that the nearest ones are not the best."""
    rounded = np.array(exact, header.fields["quatern"].dtype)
    choices = [(np.nextafter(v, -np.inf, dtype=v.dtype), v, np.nextafter(v, np.inf, dtype=v.dtype)) for v in rounded]

    def error(bcd: Sequence[float]) -> float:
        header.fields["quatern"][:3] = bcd
        return float(np.abs(header.qform() - matrix).max())

    header.fields["quatern"][:3] = min(itertools.product(*choices), key=error)


def _quaternion(turn: np.ndarray) -> Sequence[float]:
    """b, c, d of a rotation matrix, a not negative: the eigenvector of Bar-Itzhack's matrix, which is exact for each of the turns."""
    m = turn
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    b, c, d, a = np.linalg.eigh(symmetric)[1][:, -1]
    return (b, c, d) if a >= 0 else (-b, -c, -d)
