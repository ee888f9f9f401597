"""The program of the process that decodes compressed DICOM pixels (`decoder` starts it). It loads nothing of the package, so that it is there in a
third of a second. On its command line: where modules are looked for, as JSON, and the folder that it works in."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_COPY, _RESULT = "pixels.dcm", "pixels.npy"
_SPARE_BYTES, _COPIES = 1_000_000_000, 6  # what a decoder may take beyond what the pixels need, and of that


def main(paths: str, folder: str) -> None:
    """Decode what lies in the folder, once for each line of stdin, until that ends. A line: which decoder, and how many bytes the pixels need."""
    sys.path[:] = json.loads(paths)
    out: IO[str] = sys.stdout
    sys.stdout = sys.stderr  # libraries may print
    by = {"pydicom": _by_pydicom, "gdcm": _by_gdcm}
    for line in sys.stdin:
        decoder, needed = line.split()
        said = "failed"
        with suppress(Exception):
            _limit_memory(int(needed))
            _save(Path(folder) / _RESULT, by[decoder](Path(folder) / _COPY))
            said = "done"
        out.write(f"{said}\n")
        out.flush()


def _limit_memory(needed: int) -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        most, hard = taken + _COPIES * needed + _SPARE_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _save(path: Path, pixels: Any) -> None:
    import numpy as np

    np.save(path, np.asarray(pixels), allow_pickle=False)


def _by_pydicom(path: Path) -> Any:
    import pydicom

    return pydicom.dcmread(path).pixel_array


def _by_gdcm(path: Path) -> Any:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return sitk.GetArrayFromImage(reader.Execute())


if __name__ == "__main__":
    main(*sys.argv[1:])
