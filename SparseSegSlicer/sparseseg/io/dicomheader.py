"""One door to the elements of a DICOM header. pydicom converts an element when it is asked for, so any access can fail in any way; here an
element is there in a usable form, or it is not, or our own error names it and its value. Needs pydicom (extra `dicom`)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import InputError
from ..contract.opening import open_file
from .dicomfile import opened

EXPORT_AGAIN = "Export the series again."
_LONGEST = 40  # characters of a value in a sentence
_BINARY, _MOST_BINARY = {"AT", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"}, 65_536  # bytes; tables of colours, the longest, have as many numbers
Header = Any  # pydicom.Dataset; pydicom is optional


def load_pydicom() -> Any:
    """The module; raises InputError where it is not installed."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError("DICOM needs the package pydicom, which is not installed.", "Install it: pip install 'sparseseg[dicom]'.") from error
    return pydicom


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom's and highdicom's remarks on foreign files, which may quote a patient's name, are kept from screen and log."""
    loggers = [(logger, logger.level) for logger in map(logging.getLogger, ("pydicom", "highdicom"))]
    for logger, _ in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)


@contextmanager
def decoding(path: Path, what: str, advice: str = "Export it again.") -> Iterator[None]:
    """Around what takes a file apart, quietly: a damaged one can fail in any way, and is then said to be `what`. Our own errors pass."""
    try:
        with quiet():
            yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path.name} {what}.", advice) from error


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes are DICOM's: with the preamble, or as old files are, which begin with an element."""
    return head[:132].endswith(b"DICM") or begins_with_an_element(head)


def begins_with_an_element(head: bytes) -> bool:
    """An element of group 2 or 8, in either byte order, with a value representation or a small length."""
    if len(head) < 132:
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))  # type: ignore[arg-type]
        length = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
        if group in (2, 8) and element < 0x50 and (length < 1 << 12 or (head[4:6].isalpha() and head[4:6].isupper())):
            return True
    return False


def has_no_preamble(path: Path) -> bool:
    with open_file(path) as file:
        head = file.read(132)
    return not head.endswith(b"DICM") and begins_with_an_element(head)


def read_header(path: Path) -> Header:
    """A file's header, without its pixels. Raises InputError where it is no DICOM file."""
    pydicom = load_pydicom()
    try:
        with quiet(), opened(path) as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=has_no_preamble(path))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}).", "Check the path and the rights to read it.") from error
    except Exception as error:  # whatever pydicom stumbles over in a foreign file
        raise InputError(f"{path.name} is no DICOM file, or it is damaged.", "Export it again.") from error
    for name in ("SOPClassUID", "SOPInstanceUID"):  # some programs empty these to remove identity, and leave them in the file's meta information
        if not text(header, name):
            with suppress(Exception):  # whatever the element that is there does not allow
                setattr(header, name, text(getattr(header, "file_meta", None), f"MediaStorage{name}"))
    return header


# ---------------------------------------------------------------- one element


def values(holder: Any, name: str) -> list[Any]:
    """All values of an element, as pydicom has them or, where it cannot convert them, as text; empty where it is absent or empty."""
    if holder is None:
        return []
    if length := _too_long(holder, name):
        return [f"{length} bytes"]
    try:
        with quiet():
            value = holder.get(name)
    except Exception:  # whatever a value does not allow
        return _raw_texts(holder, name)
    if value is None or value == "":
        return []
    if isinstance(value, bytes):
        return _split(value)
    if isinstance(value, str):
        return value.split("\\")
    with suppress(TypeError):
        return [v for v in value if v not in (None, "")]
    return [value]


def _too_long(holder: Any, name: str) -> int:
    """The bytes of an element of binary numbers that is longer than any that is asked for, 0 of others: each number would become an object."""
    with suppress(Exception):
        dictionary = load_pydicom().datadict
        element = holder.get_item(tag := dictionary.tag_for_keyword(name))
        if isinstance(element.value, bytes) and len(element.value) > _MOST_BINARY and (element.VR or dictionary.dictionary_VR(tag))[:2] in _BINARY:
            return len(element.value)
    return 0


def _raw_texts(holder: Any, name: str) -> list[str]:
    with suppress(Exception):
        value = holder.get_item(load_pydicom().datadict.tag_for_keyword(name)).value
        return _split(value) if isinstance(value, bytes) else [str(value)]
    return []


def _split(value: bytes) -> list[str]:
    return [part.strip("\0 ") for part in value.decode("latin-1").split("\\") if part.strip("\0 ")]


def text(holder: Any, name: str) -> str:
    """The element's first value as text, without blanks around it; empty where there is none."""
    found = values(holder, name)
    return str(found[0]).strip("\0 ") if found else ""


def items(holder: Any, name: str) -> list[Any]:
    """The items of a sequence; none where it is absent or no sequence."""
    return [item for item in values(holder, name) if hasattr(item, "get_item")]


def first(holder: Any, name: str) -> Any:
    """The first item of a sequence, or None."""
    return next(iter(items(holder, name)), None)


def numbers(holder: Any, name: str) -> list[float] | None:
    """All values of an element as finite numbers (a comma counts as a decimal point); empty where it is absent, None where one is none."""
    try:
        found = [float(v.replace(",", ".") if isinstance(v, str) else v) for v in values(holder, name)]
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found).all() else None


def number(holder: Any, name: str, default: float, where: str) -> float:
    """The element's value, or `default` where it is absent. Raises InputError, naming it `where`, for what is no number, or several."""
    found = numbers(holder, name)
    if found is None or len(set(found)) > 1:
        raise no_number(holder, name, where)
    return found[0] if found else float(default)


def whole(holder: Any, name: str, default: int, where: str) -> int:
    """As `number`, for whole numbers."""
    found = number(holder, name, default, where)
    if found != int(found):
        raise no_number(holder, name, where)
    return int(found)


def no_number(holder: Any, name: str, where: str) -> InputError:
    shown = "\\".join(map(str, values(holder, name)))[:_LONGEST]
    return InputError(f"{name} of {where} is {shown!r}, which is no number that can be used.", EXPORT_AGAIN)
