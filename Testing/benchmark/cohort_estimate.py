"""Does the estimate of a cohort's volume, for which nobody annotated anything, rank volumes by their true Dice?

    python Testing/benchmark/cohort_estimate.py MODEL [--patients FOLDER] [--learned 20] [--first 0] [--count 76] [--out FILE]

MODEL is what cohort.py trained (--learned: from how many, in its order); all other patients with all organs are segmented, and Spearman's rank
correlation is printed of estimate and Dice: over volumes, of the mean of their segments and of the lowest, and within each segment.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from cohort import CLASSES, REPOSITORY, chosen, loaded
from sparseseg import io
from sparseseg.cohort.patient import Patient
from sparseseg.cohort.segmenting import Segmenter
from sparseseg.quality.estimate import dice

_ALL = 1000


def main() -> None:
    options = parsed()
    first, second = chosen(argparse.Namespace(patients=options.patients, seed=0, count=_ALL))
    others = [*first, *second][options.learned :][options.first : options.first + options.count]
    segmenter = Segmenter(options.model, options.device)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for file in others:
            rows.append(scored(segmenter, file, Path(name)))
            if options.out:
                options.out.write_text(json.dumps(rows), encoding="utf-8")
    print(said(rows))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--patients", type=Path, default=REPOSITORY.parent / "shared" / "training")
    parser.add_argument("--learned", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="of the others to begin with")
    parser.add_argument("--count", type=int, default=_ALL)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def scored(segmenter: Segmenter, file: Path, folder: Path) -> dict[str, list[float]]:
    """Estimate and true Dice of each segment."""
    image, truth, geometry = loaded(file)
    io.write_volume(folder / "image.nrrd", image, geometry)
    estimate = segmenter.segment(Patient(file.stem, (str(folder / "image.nrrd"),)), folder / "result.nrrd").estimate
    found = io.read_labels(folder / "result.nrrd", geometry)
    return {"estimate": [estimate[i] for i in CLASSES.ids], "dice": [dice(found, truth, c) for c in range(1, len(CLASSES) + 1)]}


def said(rows: list[dict[str, list[float]]]) -> str:
    estimate, true = (np.array([row[key] for row in rows]) for key in ("estimate", "dice"))
    lines = [f"{len(rows)} volumes, true Dice {true.mean():.3f} (lowest segment {true.min(1).mean():.3f}), estimate {estimate.mean():.3f}"]
    lines.append(f"rank correlation over volumes: mean of segments {spearmanr(estimate.mean(1), true.mean(1))[0]:.2f}")
    lines.append(f"rank correlation over volumes: lowest segment {spearmanr(estimate.min(1), true.min(1))[0]:.2f}")
    within = [spearmanr(estimate[:, c], true[:, c])[0] for c in range(true.shape[1])]
    lines.append("within segments: " + ", ".join(f"{name} {rank:.2f}" for name, rank in zip(CLASSES.names, within, strict=True)))
    worst, shown = (set(np.argsort(each.mean(1))[: len(rows) // 4].tolist()) for each in (true, estimate))
    lines.append(f"of the worst quarter, {len(worst)} volumes, so many are in the quarter that is shown first: {len(worst & shown)}")
    lines.append(f"mean difference of estimate and Dice, absolute: {np.abs(estimate - true).mean():.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
