"""Train the refiner on synthetic volumes and, where there are any, on patients.

usage: train.py [--seed 1] [--steps N | --minutes M] [--makers 1] [--patients FOLDER] [--out refiner.pt] [--resume FILE] [--data FOLDER]

Other processes make volumes and draw lessons from them, each volume several times, another segment and another view of it each time; this one
learns. The same seed, number of makers and steps give the same lessons in the same order. The log says, now and then, the loss, mean Dice of prior
and network on the last lessons, and (with --data) on real cases, which are never learned from.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing as mp
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "60000")  # views have many shapes
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SparseSegSlicer"), str(ROOT / "pretraining"), str(ROOT / "Testing")]

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from patients import Library  # noqa: E402
from synthesize import Rng, Sample, synthesize  # noqa: E402
from torch import Tensor  # noqa: E402

from sparseseg.contract.belief import Belief  # noqa: E402
from sparseseg.contract.box import whole  # noqa: E402
from sparseseg.network import device as devices  # noqa: E402
from sparseseg.network.device import Compute  # noqa: E402
from sparseseg.prior import compiled, refiner_view  # noqa: E402
from sparseseg.prior.refiner import find_extents  # noqa: E402
from sparseseg.prior.refiner_network import BELIEF, Refiner, Triple, as_grown, plan_pools  # noqa: E402
from sparseseg.prior.refiner_view import View  # noqa: E402
from sparseseg.prior.refiner_vote import CERTAIN  # noqa: E402
from sparseseg.prior.volumes import Volumes  # noqa: E402

STEPS = 2800
USES = 3  # of each volume
KEPT = 12  # volumes that a maker draws from
LESSONS_PER_STEP = 2
PATIENTS = 0.5  # share of the volumes, where there are any
SECOND_LOOKS = 0.25  # share of views where the network gets its own result instead of the prior
COARSE = 0.2  # share of views on a coarser grid, as large volumes are seen
_EMA = 0.998
_MOST, _MOST_COARSE = 450_000, 60_000  # working voxels of a view


def produce(seed: int, patients: Path | None, queue: mp.Queue) -> None:
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    compiled.warm_up()
    rng = np.random.default_rng(seed)
    library = Library.of(patients) if patients else None
    samples: deque[Sample] = deque(maxlen=KEPT)
    while True:
        samples.append(library.sample(rng) if library and rng.random() < PATIENTS else synthesize(rng))
        for _ in range(USES):
            queue.put(packed(draw(rng, samples)))


def turned(rng: Rng, sample: Sample) -> Sample:
    """Mirrored and its axes exchanged at random; gray values bent or turned into their negative at times."""
    order, flips = rng.permutation(3), rng.random(3) < 0.5

    def turn(volume: np.ndarray) -> np.ndarray:
        volume = volume.transpose(order)
        return np.ascontiguousarray(volume[tuple(slice(None, None, -1 if f else 1) for f in flips)])

    image = turn(sample.image).astype(np.float32)
    if rng.random() < 0.5:
        image = -image
    if rng.random() < 0.3:
        image = np.arcsinh((image - np.median(image)) / (rng.uniform(0.5, 2) * image.std() + 1e-6))
    k, j, i = (sample.spacing_kji[a] for a in order)
    grown = Belief(turn(sample.prior.label), turn(sample.prior.confidence))
    return replace(
        sample, image=image, truth=turn(sample.truth), labels=turn(sample.labels), labelled=turn(sample.labelled), prior=grown, spacing_kji=(k, j, i)
    )


@dataclass(frozen=True)
class Lesson:
    """One segment. On its working grid, whose voxels are `factors` of the volume's own (k, j, i): features (CHANNELS, k, j, i) float32,
    agreement (k, j, i) float32, and how they are pooled; on the volume's own, (k, j, i): the logit of growing, float32, the truth, and where it
    counts, bool: where nobody labelled, and where labels are in doubt."""

    factors: Triple
    pools: list[Triple]
    features: Tensor
    agreement: Tensor
    logit: Tensor
    truth: Tensor
    counts: Tensor


def packed(lesson: Lesson) -> tuple[Any, ...]:
    """For the way between processes: arrays, and features as float16."""
    tensors = (lesson.features.half(), lesson.agreement.half(), lesson.logit.half(), lesson.truth, lesson.counts)
    return lesson.factors, lesson.pools, *(t.numpy() for t in tensors)


def unpacked(parts: tuple[Any, ...], device: torch.device) -> Lesson:
    factors, pools, *arrays = parts
    features, agreement, logit, truth, counts = (torch.from_numpy(a).to(device) for a in arrays)
    return Lesson(factors, pools, features.float(), agreement.float(), logit.float(), truth, counts)


def draw(rng: Rng, samples: deque[Sample]) -> Lesson:
    while True:
        sample = turned(rng, samples[int(rng.integers(len(samples)))])
        value = int(rng.choice(np.unique(sample.truth[sample.truth > 0])))
        lesson = lesson_of(sample, value, _MOST_COARSE if rng.random() < COARSE else _MOST)
        if lesson is None:
            continue
        lesson = trimmed(rng, lesson, sample.spacing_kji) if lesson.factors == (1, 1, 1) else lesson
        if lesson.counts.any():
            return lesson


def lesson_of(sample: Sample, value: int, most: int) -> Lesson | None:
    """What the network is told of a segment on a grid of at most so many working voxels; None where neither growing nor annotation have it."""
    volumes = Volumes(sample.prior.label, sample.prior.confidence, sample.image, sample.labels, sample.labelled, sample.spacing_kji)
    extent = find_extents(volumes, whole(sample.truth.shape), lambda: None).get(value)
    if extent is None:
        return None
    usual, refiner_view.WORKING_VOXELS = refiner_view.WORKING_VOXELS, most
    try:
        view: View = refiner_view.look(volumes, value, extent)
    finally:
        refiner_view.WORKING_VOXELS = usual
    label, certain = sample.prior.label[view.box], CERTAIN[sample.prior.confidence[view.box]]
    logit = torch.from_numpy(np.where(label == value, certain, -certain))
    truth, counts = (
        torch.from_numpy(sample.truth[view.box] == value),
        torch.from_numpy(~sample.labelled[view.box] | (sample.prior.confidence[view.box] < 255)),
    )
    return Lesson(view.factors, view.pools, view.features(whole(view.shape)), view.agreement.float(), logit, truth, counts)


def trimmed(rng: Rng, lesson: Lesson, spacing: Sequence[float]) -> Lesson:
    """Cut to multiples of 8 or 16 voxels: convolutions are prepared anew for each new shape, which takes as long as using them."""
    box = []
    for n in lesson.logit.shape:
        keep = n if n < 16 else n - n % (16 if n >= 64 else 8)
        first = int(rng.integers(n - keep + 1))
        box.append(slice(first, first + keep))
    part = (box[0], box[1], box[2])
    agreement, logit, truth, counts = (v[part] for v in (lesson.agreement, lesson.logit, lesson.truth, lesson.counts))
    return Lesson(lesson.factors, plan_pools(spacing, logit.shape), lesson.features[(slice(None), *part)], agreement, logit, truth, counts)


def on_own_grid(added: Tensor, lesson: Lesson) -> Tensor:
    """What the network adds, as far as growing's labels agree in each working voxel, linear between the centres of these; (k, j, i) both. As
    refiner_vote.py does it in the engine, but so that it can be learned through."""
    small, (k, j, i) = added * lesson.agreement, lesson.logit.shape
    if lesson.factors == (1, 1, 1):
        return small
    factors = [float(f) for f in lesson.factors]
    return F.interpolate(small[None, None], scale_factor=factors, mode="trilinear", align_corners=False)[0, 0, :k, :j, :i]


@torch.no_grad()
def second_look(network: Refiner, lesson: Lesson, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logit (k, j, i) and the input (1, CHANNELS, k, j, i) as if the network's result were what growing says."""
    logit = lesson.logit + network(x, lesson.pools)[0].float()
    belief = as_grown(logit)
    x = x.clone()
    x[0, BELIEF] = belief
    return belief, x


def loss_of(logit: Tensor, truth: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy and soft Dice of one view, all (k, j, i), on the voxels that count."""
    z, y = logit[counts], truth[counts].float()
    p = torch.sigmoid(z)
    overlap = (2 * (p * y).sum() + 20) / (p.sum() + y.sum() + 20)
    entropy = F.binary_cross_entropy_with_logits(z, y)
    return 1 - overlap + 0.3 * entropy  # mostly Dice: cross-entropy gives up what is uncertain, and far from labels most is


def dice(logit: Tensor, truth: Tensor, counts: Tensor) -> float:
    ours, theirs = (logit > 0) & counts, truth & counts
    return float(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()).clamp(min=1))


class Average:
    """A moving average of the weights."""

    def __init__(self, network: Refiner) -> None:
        self.weights = {name: w.detach().clone() for name, w in network.state_dict().items()}
        self._steps = 0

    def update(self, network: Refiner) -> None:
        self._steps += 1
        keep = min(_EMA, self._steps / (self._steps + 20))
        for name, w in network.state_dict().items():
            self.weights[name].lerp_(w, 1 - keep)

    def network(self) -> Refiner:
        network = Refiner()
        network.load_state_dict({name: w.cpu() for name, w in self.weights.items()})
        return network.to(memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload,no-any-return]

    def save(self, path: Path) -> None:
        torch.save({name: w.half().cpu() for name, w in self.weights.items()}, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)


def learn(network: Refiner, rng: Rng, lesson: Lesson, compute: Compute) -> tuple[Tensor, float, float]:
    """The loss of one lesson, and Dice before and after the network's correction."""
    truth, counts = lesson.truth, lesson.counts
    x = lesson.features[None].contiguous(memory_format=torch.channels_last_3d)
    before = lesson.logit
    with compute.autocast():
        if rng.random() < SECOND_LOOKS and lesson.factors == (1, 1, 1):
            before, x = second_look(network, lesson, x)
        added = network(x, lesson.pools)[0].float()
    logit = before + on_own_grid(added, lesson)
    return loss_of(logit, truth, counts), dice(before, truth, counts), dice(logit.detach(), truth, counts)


def train(options: argparse.Namespace) -> None:
    """Lessons are taken from the makers in turn: so a seed, their number and a number of steps say all."""
    compute = devices.choose(options.device)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    queues: list[mp.Queue] = [mp.Queue(4) for _ in range(options.makers)]
    makers = [mp.Process(target=produce, args=(1000 * options.seed + n, options.patients, q), daemon=True) for n, q in enumerate(queues)]
    for maker in makers:
        maker.start()
    turns = itertools.cycle(zip(makers, queues, strict=True))
    lessons = (unpacked(taken(*turn), compute.device) for turn in turns)
    network = Refiner().to(compute.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if options.resume:
        network.load_state_dict(load(options.resume))
    average, optimizer = Average(network), torch.optim.AdamW(network.parameters(), options.rate, weight_decay=0.01)
    recent: deque[tuple[float, float, float]] = deque(maxlen=1000)
    length = f"{options.minutes:g} minutes" if options.minutes else f"{options.steps} steps"
    start, told, step, share = time.monotonic(), 0.0, 0, 0.0
    say(f"{compute.why}; seed {options.seed}, {options.makers} makers, {length}")
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / 100) * max(0.01, 0.5 + 0.5 * math.cos(math.pi * share))
        optimizer.zero_grad()
        for _ in range(LESSONS_PER_STEP):
            loss, before, after = learn(network, rng, next(lessons), compute)
            (loss / LESSONS_PER_STEP).backward()
            recent.append((float(loss.detach()), before, after))
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network)
        step, seconds = step + 1, time.monotonic() - start
        share = seconds / 60 / options.minutes if options.minutes else step / options.steps
        if seconds - told > options.tell or share >= 1:
            told = seconds
            tell(options, average, recent, step, seconds)
            average.save(options.out)
    for maker in makers:
        maker.kill()


def taken(maker: mp.Process, queue: mp.Queue) -> tuple[Any, ...]:
    """The next lesson of a maker; ends the program where that has died, which would be waited for otherwise."""
    while True:
        try:
            return queue.get(timeout=10)  # type: ignore[no-any-return]
        except Empty:
            if not maker.is_alive():
                raise SystemExit("A process that makes lessons has died; see above why.") from None


def load(path: Path) -> dict[str, Tensor]:
    """Weights, also of a network with fewer channels, whose new ones it has not seen."""
    weights = {name: w.float() for name, w in torch.load(path, map_location="cpu", weights_only=True).items()}
    first = "encoder.0.0.weight"
    missing = Refiner().state_dict()[first].shape[1] - weights[first].shape[1]
    weights[first] = F.pad(weights[first], (0, 0, 0, 0, 0, 0, 0, missing))
    return weights


def tell(options: argparse.Namespace, average: Average, recent: deque, step: int, seconds: float) -> None:
    loss, before, after = np.mean(recent, axis=0)
    say(f"{seconds / 60:5.1f} min, step {step}: loss {loss:.4f}, Dice {before:.4f} -> {after:.4f}")
    if options.data:
        from evaluate import evaluate

        evaluate(average.network(), options.data, say)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, help="to train for, instead of a number of steps")
    parser.add_argument("--makers", type=int, default=1, help="processes that make lessons")
    parser.add_argument("--patients", type=Path, help="folder of head-neck-ct and brain-labels, see patients.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--tell", type=float, default=300, help="seconds between lines of the log")
    parser.add_argument("--out", type=Path, default=Path("refiner.pt"))
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--data", type=Path, help="real cases to score on")
    parser.add_argument("--device", default="auto")
    train(parser.parse_args())
