"""One case, one annotation, one method: run it in a process of its own, then score what came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, Task
from product import Product, Refused
from scores import mean_dice, mean_of, painted_dice, scores

import hands
from cases import Case, annotate_slices, load_case, spread_slices
from phantoms import two_organs
from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.job import DENSE, VOICES
from sparseseg.contract.settings import Settings
from sparseseg.io import files

PRODUCT = "sparseseg"
METHODS = (PRODUCT, *PEERS)
DEFAULT_METHODS = tuple(m for m in METHODS if m != "nnunet")
EXACT = ("slices-3", "slices-5", "ortho-3", "strokes-2", "strokes-3")
# by the end of a protocol's name: contours so many voxels off (standard deviation); a brush of radius 2 that crosses the border by so many voxels
CONTOURS_OFF, BRUSH_OVER, RADIUS = {"-off1": 1, "-off2": 2}, {"-thick": 0, "-over": 1}, 2
IMPRECISE = (*(f"slices-5{end}" for end in CONTOURS_OFF), *(f"strokes-3{end}" for end in BRUSH_OVER))
PROTOCOLS = (*EXACT, *IMPRECISE)
GENERATED = "even-"  # even-4: four complete axial slices from truth, evenly spread
PEER_LIMIT_S = 1800


@dataclass(frozen=True)
class Options:
    """What holds for a whole run."""

    device: str = "auto"
    budget_s: float = 180.0
    nnunet_s: float = 600.0
    seed: int = 0
    quick: bool = False

    def settings(self, **changes: Any) -> Settings:
        settings = Settings(time_budget_s=self.budget_s, seed=self.seed)
        if self.quick:
            settings = replace(settings, steps=8, width=4, depth=2, patch_voxels=16**3)
        return replace(settings, **changes)


@dataclass(frozen=True)
class Pair:
    """A case with one annotation of it, (K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c. exact: that which it was made imprecise
    from, or None; nothing is scored on either."""

    case: Case
    protocol: str
    annotation: np.ndarray
    modality: str = "CT"
    exact: np.ndarray | None = None

    @property
    def name(self) -> str:
        return f"{self.case.name}, {self.protocol}"

    @property
    def seen(self) -> np.ndarray:
        """An annotation map, above 0 where nothing is scored."""
        return self.annotation if self.exact is None else np.maximum(self.annotation, self.exact)

    def with_annotation(self, annotation: np.ndarray) -> Pair:
        return replace(self, annotation=annotation)

    def dice(self, result: np.ndarray) -> float | None:
        return mean_dice(result, self.case.truth, self.seen)

    def painted(self, result: np.ndarray) -> float | None:
        """Mean Dice of the segments that the annotation has."""
        return mean_of(list(painted_dice(result, self.case.truth, self.seen).values()))


def case_folders(given: list[Path]) -> list[Path]:
    """Each folder is a case, or holds cases. Ends the program where there is none."""
    found = []
    for folder in given:
        inside = sorted(p.parent for p in folder.glob("*/case.json"))
        found += [folder] if (folder / "case.json").exists() else inside
    if not found:
        raise SystemExit(f"No case (a folder with case.json) in {', '.join(map(str, given))}.")
    return found


def load_pair(folder: Path, protocol: str, case: Case | None = None) -> Pair | None:
    """None where the case has no such annotation, or not all of its segments would be annotated."""
    case = case or load_case(folder)
    modality = json.loads((folder / "case.json").read_text(encoding="utf-8")).get("modality", "CT")
    if protocol.startswith(GENERATED):
        annotation = annotate_slices(case.truth, spread_slices(case.truth, 0, int(protocol.removeprefix(GENERATED))))
        complete = set(np.unique(annotation)) >= {value + 1 for value in np.unique(case.truth)}
        return Pair(case, protocol, annotation, modality) if complete else None
    end = next((end for end in (*CONTOURS_OFF, *BRUSH_OVER) if protocol.endswith(end)), "")
    file = folder / "annotations" / f"{protocol.removesuffix(end)}.nii.gz"
    if not file.exists():
        return None
    annotation = files.read_volume(file).array.astype(np.uint8)
    return Pair(case, protocol, imprecise(annotation, case.truth, end), modality, annotation) if end else Pair(case, protocol, annotation, modality)


def imprecise(annotation: np.ndarray, truth: np.ndarray, end: str) -> np.ndarray:
    """The annotation as imprecise hands make it; the same hands each time."""
    if end in CONTOURS_OFF:
        return hands.contours_off(np.random.default_rng(0), annotation, CONTOURS_OFF[end])
    return hands.brushed(annotation, truth, RADIUS, BRUSH_OVER[end])


def phantom_pairs() -> list[Pair]:
    """A tiny case with three complete slices, and with strokes."""
    phantom = two_organs()
    case = Case("phantom", phantom.image, phantom.truth, phantom.geometry, phantom.classes)
    strokes = np.where(np.arange(phantom.truth.shape[1])[None, :, None] % 5 == 0, phantom.annotation, 0).astype(np.uint8)
    return [Pair(case, "slices-3", phantom.annotation), Pair(case, "strokes-1", strokes)]


def run(method: str, pair: Pair, options: Options) -> dict[str, Any]:
    """One row: case, protocol, method, status, and, where that is ok, scores, seconds and peak memory."""
    row: dict[str, Any] = {"case": pair.case.name, "protocol": pair.protocol, "method": method, "load": load()}
    with tempfile.TemporaryDirectory(prefix="sparseseg-bench-", ignore_cleanup_errors=True) as folder:
        outcome, label = run_product(pair, options, Path(folder)) if method == PRODUCT else run_peer(method, pair, options, Path(folder))
    row |= outcome
    if label is not None:
        row["segments"] = pair.case.classes.names
        row |= {"painted": pair.painted(label)} | scores(label, pair.case.truth, pair.seen, pair.case.geometry.spacing_kji_mm)
    if row.get("estimate") is not None and row["dice"]["mean"] is not None:
        row["estimate_error"] = abs(row["estimate"] - row["dice"]["mean"])
    return row


def run_peer(method: str, pair: Pair, options: Options, folder: Path) -> tuple[dict[str, Any], np.ndarray | None]:
    """A peer that is missing, fails, is killed or never ends gives a row that says so."""
    spacing, segments = pair.case.geometry.spacing_kji_mm, len(pair.case.classes)
    seconds = (1.0 if options.quick else options.nnunet_s) if method == "nnunet" else options.budget_s
    Task(folder, pair.case.image, pair.annotation, spacing, segments, pair.modality, options.device, seconds, options.seed).save()
    command = [sys.executable, str(Path(__file__).with_name("peers.py")), method, str(folder)]
    with open(folder / "log.txt", "wb") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=seconds + PEER_LIMIT_S, check=False).returncode
        except subprocess.TimeoutExpired:
            return {"status": "failed", "reason": f"not done after {seconds + PEER_LIMIT_S:.0f} s"}, None
    said = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()[-2000:]
    if not (folder / f"{method}.json").exists():
        return {"status": "failed", "reason": f"its process ended with {code}", "log": said}, None
    outcome = json.loads((folder / f"{method}.json").read_text(encoding="utf-8"))
    outcome |= {"log": said} if outcome["status"] == "failed" else {}
    outcome |= {"notes": notes} if (notes := [line for line in said.splitlines() if line.startswith("nnU-Net: ")]) else {}
    return outcome, np.load(folder / f"{method}.npy") if outcome["status"] == "ok" else None


def run_product(pair: Pair, options: Options, folder: Path) -> tuple[dict[str, Any], np.ndarray | None]:
    try:
        start = time.perf_counter()
        with Product(folder / "job", pair.case, pair.annotation, options.settings(), options.device) as product:
            trained = product.train()
            with_start = time.perf_counter() - start
            peak, on = product.peak_gb, product.device
        voices = {**VOICES, "together": DENSE}
        labels = {voice: np.load(folder / "job" / file) for voice, file in voices.items() if (folder / "job" / file).exists()}
    except (Refused, SparseSegError) as error:
        return {"status": "failed", "reason": str(error)[:1000]}, None
    previews = [{"seconds": s.seconds, "source": s.source, "step": s.step, "dice": pair.dice(s.dense)} for s in trained.shown]
    names = dict(zip(pair.case.classes.ids, pair.case.classes.names, strict=True))
    outcome = {
        "status": "ok",
        "seconds": trained.seconds,
        "seconds_with_start": with_start,
        "opened_s": product.opened_s,
        "peak_gb": peak,
        "device": on,
        "steps": trained.result.step,
        "previews": previews,
        "first_preview_s": previews[0]["seconds"] if previews else None,
        "first_preview_dice": previews[0]["dice"] if previews else None,
        "voices": {voice: pair.painted(label) for voice, label in labels.items()},
        "estimate": trained.estimate,
        "estimates": {names[i]: v for i, v in trained.result.estimate.items()},
        "share": trained.result.share,
    }
    return outcome, trained.dense


def load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
