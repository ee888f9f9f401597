"""The main job on real data, as `make demo` runs it: a few annotated slices in, a dense segmentation and a report out."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cases import Case, annotate_slices, load_case, mni_case, score, spread_slices
from sparseseg import cli, report
from sparseseg.contract.child import worker_environment
from sparseseg.contract.classes import BACKGROUND_TAG, Segment
from sparseseg.io import files

TIME_BUDGET_S = 90
AXIAL_SLICES, OTHER_SLICES = 3, 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=Path, help="a folder with image.nii.gz or dicom/, truth.nii.gz and case.json")
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    parser.add_argument("--engine", help="ssh://user@host: another computer that does the work")
    parser.add_argument("--time-budget", type=float, default=TIME_BUDGET_S)
    options = parser.parse_args()
    case = load_case(options.case) if options.case else mni_case()
    options.output.mkdir(parents=True, exist_ok=True)
    annotation = few_slices(case)
    labelled = 100 * np.count_nonzero(annotation) / annotation.size
    print(f"{case.name}: {' x '.join(map(str, case.truth.shape))} voxels, {labelled:.1f} % of them annotated", flush=True)
    image_file, annotation_file, dense_file = (options.output / name for name in ("image.nrrd", "annotation.seg.nrrd", "dense.seg.nrrd"))
    files.write_volume(image_file, case.image, case.geometry)
    background = Segment("Background", "Background", (0.4, 0.4, 0.4), {BACKGROUND_TAG: "1"})
    files.write_annotation(annotation_file, annotation, case.geometry, replace(case.classes, background=background))
    job = options.output / "job"
    shutil.rmtree(job, ignore_errors=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "sparseseg", "segment", str(image_file), str(annotation_file), "-o", str(dense_file)]
    command += ["--job", str(job), "--time-budget", str(options.time_budget), *(["--engine", options.engine] if options.engine else [])]
    code = subprocess.run(command, env=worker_environment(), check=False).returncode
    if code:
        return code
    seconds = time.monotonic() - start
    data = cli.report_input(job, case.name, case.truth)
    report.write_report(options.output / "report.html", data)
    print_table(case, annotation, {**data.voices, "together": data.dense}, data.run["share"], seconds)
    del data  # the arrays are memory-mapped files of the job
    shutil.rmtree(job, ignore_errors=True)
    print(f"\n{options.output / 'report.html'}: open it in a browser; {dense_file}: open it in 3D Slicer together with {image_file.name}")
    return 0


def few_slices(case: Case) -> np.ndarray:
    """Three axial slices, and one coronal and one sagittal: enough to show every segment, two thousandths of a brain's slices."""
    slices = []
    for plane, count in (("axial", AXIAL_SLICES), ("coronal", OTHER_SLICES), ("sagittal", OTHER_SLICES)):
        slices += spread_slices(case.truth, case.geometry.plane_axis(plane), count)
    return annotate_slices(case.truth, slices)


def print_table(case: Case, annotation: np.ndarray, voices: dict[str, np.ndarray], share: float, seconds: float) -> None:
    """Dice of each voice alone and of the result; the prior is growing and refiner together."""
    scores = {name: score(labels, case.truth, annotation) for name, labels in voices.items()}
    names = [*case.classes.names, "mean"]
    width = max(map(len, names))
    print(f"\nDice on unannotated voxels after {seconds:.0f} s; the network's share of the result: {share:.2f}")
    print(f"{'':{width}}" + "".join(f"{name:>10}" for name in voices))
    for row, name in enumerate(names):
        values = [float(np.mean(found)) if name == "mean" and row == len(names) - 1 else found[row] for found in scores.values()]
        print(f"{name:{width}}" + "".join(f"{value:10.3f}" for value in values))


if __name__ == "__main__":
    sys.exit(main())
