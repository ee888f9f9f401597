"""The network from nothing and with what it begins with, side by side: how right it is alone and mixed with the prior, after equal seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from methods import Pair
from voices import mean_painted

from sparseseg.annotation.labels import Annotation, build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.settings import Settings
from sparseseg.network import device
from sparseseg.network.augmentation import Augmenter, TrainingVolume
from sparseseg.network.device import Compute
from sparseseg.network.intensity import Intensity
from sparseseg.network.predict import Input, predict
from sparseseg.network.sampling import WorkingGrid
from sparseseg.network.start import shipped
from sparseseg.network.targets import Targets
from sparseseg.network.trainer import Trainer
from sparseseg.prior import compiled
from sparseseg.prior.grid import region
from sparseseg.prior.grown import Grown
from sparseseg.prior.refiner import Refined
from sparseseg.quality.fusion import fuse, pool

SECONDS = (15.0, 45.0)
SHARE = 0.35  # of the network where it is mixed with the prior
Row = dict[str, Any]


def beginnings_of(pair: Pair, compute: Compute, seconds: Sequence[float]) -> list[Row]:
    """For each time: Dice of the prior, of the network alone and of both, from nothing and with its start. The seconds are those of steps."""
    compiled.warm_up()
    annotation = build_annotation(pair.annotation, pair.case.classes, Settings())
    prior, rows = prior_of(pair, annotation, compute), []
    for limit in seconds:
        row: Row = {"case": pair.case.name, "annotation": pair.protocol, "seconds": limit, "prior": mean_painted(prior.label, pair)}
        for name, begins in (("nothing", False), ("start", True)):
            trainer = trained(pair, annotation, prior, compute, limit, begins)
            row |= {f"{name}: steps": trainer.steps} | {f"{name}: {what}": dice for what, dice in said(trainer, pair, prior).items()}
        rows.append(row)
    return rows


def prior_of(pair: Pair, annotation: Annotation, compute: Compute) -> Belief:
    """Growing and refiner pooled."""
    image, spacing = pair.case.image, pair.case.geometry.spacing_kji_mm
    grown = Grown.start(image, annotation.labels, annotation.labelled, spacing)
    refined = Refined.start(grown.label, grown.confidence, image, annotation.labels, annotation.labelled, spacing, compute.device, compute.dtype)
    return pool(Belief(grown.label, grown.confidence), Belief(refined.label, refined.confidence), annotation.labelled)


def trained(pair: Pair, annotation: Annotation, prior: Belief, compute: Compute, seconds: float, begins: bool) -> Trainer:
    """A network after so many seconds of steps, as the engine plans it."""
    settings, spacing = Settings(), pair.case.geometry.spacing_kji_mm
    box = region(annotation.labels, annotation.labelled)
    own = tuple(s.stop - s.start for s in box)
    plan = device.plan_run(compute, spacing, own, len(pair.case.classes.ids) + 1, settings)
    grid = WorkingGrid(pair.case.geometry.shape_kji, box, plan.grid_kji)
    intensity = Intensity.fit(pair.case.image, np.asarray(pair.case.image)[annotation.labelled & (annotation.labels > 0)])
    targets = Targets(annotation, prior, settings, compute.device, within=box)
    volume = TrainingVolume(grid, intensity.apply(pair.case.image, grid, compute.device), targets)
    trainer = Trainer(compute, plan, volume, Augmenter(grid, spacing), settings)
    start = time.perf_counter()
    if begins and shipped().fits(plan.network):
        trainer.begin_with(shipped())
    while (passed := time.perf_counter() - start) < seconds:
        trainer.step(passed / seconds)
    return trainer


def said(trainer: Trainer, pair: Pair, prior: Belief) -> Row:
    volume = trainer.volume
    found = predict(trainer.average, Input(volume.image, volume.grid), volume.targets.sampler.orientations, trainer.plan.slices, trainer.compute)
    box = volume.grid.box
    network = found.at(box)
    assert network is not None
    alone, together = np.zeros_like(prior.label), prior.label.copy()
    alone[box] = network.argmax(0)
    together[box] = fuse(Belief(prior.label[box], prior.confidence[box]), network, SHARE)[0]
    return {"network": mean_painted(alone, pair), "together": mean_painted(together, pair)}


def means(rows: Sequence[Row]) -> list[Row]:
    """By time, and by time and annotation."""
    columns = [name for name in rows[0] if name not in ("case", "annotation", "seconds")]
    found = []
    for limit in dict.fromkeys(row["seconds"] for row in rows):
        for protocol in (*dict.fromkeys(row["annotation"] for row in rows), ""):
            some = [row for row in rows if row["seconds"] == limit and protocol in ("", row["annotation"])]
            about = {"seconds": limit, "annotation": protocol or "**all**", "pairs": len(some)}
            found.append(about | {name: round(float(np.mean([row[name] for row in some if row[name] is not None])), 4) for name in columns})
    return found
