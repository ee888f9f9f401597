"""The picture of the voices in docs/method.md: `python Testing/make_voices_figure.py JOB [--truth FILE]` draws what growing, prior, network and all
together say in a finished job, on the slice of its report that lies farthest from the annotation. Needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from sparseseg import cli
from sparseseg.contract.job import Job
from sparseseg.io import files
from sparseseg.report.data import ReportInput
from sparseseg.report.drawing import window_of
from sparseseg.report.numbers import dice_table
from sparseseg.report.slices import choose_slices, display_slice, pixel_mm
from sparseseg.report.voices import farthest

TARGET = Path(__file__).resolve().parents[1] / "Resources" / "Screenshots" / "voices.png"
PANEL_INCHES, DPI = 2.9, 110


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path, help="the folder of a finished job (segment --job FOLDER)")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="labels on the image's grid: 0 background, c segment c")
    parser.add_argument("--output", type=Path, default=TARGET, metavar="FILE")
    options = parser.parse_args()
    truth = None
    if options.truth:
        with Job.open(options.job) as job:
            truth = files.read_labels(options.truth, job.record.geometry)
    draw(cli.report_input(options.job, options.job.name, truth), options.output)
    print(options.output)


def draw(data: ReportInput, file: Path) -> None:
    """A panel for each voice and one for the result: segments in colour, truth in white, mean Dice on unlabelled voxels above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    slices = choose_slices(data)
    chosen = slices[farthest(data, slices)]
    height_mm, width_mm = pixel_mm(data.geometry, chosen.plane)
    mean = dice_table(data)[-1]
    scores = {**mean.voices, "together": mean.result}
    panels = {**data.voices, "together": data.dense}
    flat = {
        name: display_slice(array, data.geometry, chosen.plane, chosen.index)
        for name, array in {**panels, "image": data.image, "truth": data.truth}.items()
        if array is not None
    }
    rows, columns = flat["image"].shape
    fig = Figure((PANEL_INCHES * len(panels), PANEL_INCHES * rows * height_mm / (columns * width_mm) + 0.5), dpi=DPI, layout="constrained")
    FigureCanvasAgg(fig)
    low, high = window_of(data)
    for ax, name in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        ax.imshow(flat["image"], "gray", vmin=low, vmax=high, aspect=height_mm / width_mm)
        for c, segment in enumerate(data.classes.segments, start=1):
            outline(ax, flat[name] == c, segment.color, fill=0.35)
        for c in range(1, len(data.classes) + 1) if "truth" in flat else ():
            outline(ax, flat["truth"] == c, "white")
        ax.set_title(name.capitalize() + ("" if scores[name] is None else f", {scores[name]:.3f}"), fontsize=10)
        ax.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        ax.set_axis_off()
    file.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(file)


def outline(ax, mask: np.ndarray, color, fill: float = 0.0) -> None:
    """Along the voxels' edges, corners cut by an eighth of a voxel."""
    if not mask.any():
        return
    fine = np.pad(mask, 1).repeat(4, 0).repeat(4, 1)  # contours run half-way between samples: here, along the voxels' edges
    y, x = (np.arange(n) / 4 - 1.375 for n in fine.shape)
    if fill:
        ax.contourf(x, y, fine, levels=[0.5, 1.5], colors=[color], alpha=fill)
    ax.contour(x, y, fine, levels=[0.5], colors=[color], linewidths=1.0)


if __name__ == "__main__":
    main()
